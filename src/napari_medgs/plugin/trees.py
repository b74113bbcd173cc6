"""Trees of parts beside the fields that layers carry, made before anybody asks for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs._util.priority import give_way
from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.errors import MedGSError
from napari_medgs.plugin.layer_metadata import field_of
from napari_medgs.plugin.report import LOGGER
from napari_medgs.plugin.worker import Runner

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.hierarchy import PartTree

TREE_KEY = "medgs_parts"
MOST_VOXELS = 60_000_000  # of all contrasts, four bytes each: for more, a tree is made on demand


def tree_of(layers: Iterable[Any], field: GaussianField | None) -> PartTree | None:
    """Return the tree of a field that one of the layers carries, if any does."""
    for layer in layers if field is not None else ():
        tree = layer.metadata.get(TREE_KEY) if field_of(layer) is field else None
        if tree is not None and tree.need_renderer().field is field:
            return tree
    return None


def keep_tree(layers: Iterable[Any], tree: PartTree) -> None:
    """Let the layers that carry a field carry its tree, too."""
    field = tree.need_renderer().field
    for layer in layers:
        if field_of(layer) is field:
            layer.metadata[TREE_KEY] = tree


def file_with_tree(layers: Iterable[Any], field: GaussianField | None) -> Path | None:
    """Return the field file that a field was read from, as far as its layers know it."""
    for layer in layers if field is not None else ():
        path = layer.source.path if field_of(layer) is field else None
        if path and Path(path).name.endswith(".safetensors") and Path(path).is_file():
            return Path(path)
    return None


def stored_tree(path: Path | None, field: GaussianField | None) -> PartTree | None:
    """Return the tree that a field file holds, if it holds one of this field."""
    if path is None or field is None:
        return None
    from napari_medgs.hierarchy import has_tree, load_tree

    try:
        return load_tree(path, field) if has_tree(path) else None
    except MedGSError as error:
        LOGGER.info("the tree of a file is made anew: %s", error)
        return None


def save_with_tree(path: Path, field: GaussianField, tree: PartTree | None) -> None:
    """Write a field, and its tree where there is one and the format holds trees."""
    from napari_medgs.hierarchy import save_tree
    from napari_medgs.io.fields import save_field

    if tree is not None and path.name.endswith(".safetensors"):
        save_tree(path, tree)
    else:
        save_field(path, field)


@dataclass(frozen=True)
class MakeTree:
    """Make the tree of an image on one thread, so that others have the rest of the machine.

    Attributes
    ----------
    volume : Volume
    field : GaussianField
    """

    volume: Volume
    field: GaussianField

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> PartTree:
        """Return the tree."""
        from napari_medgs.hierarchy import PartParams, part_tree

        return part_tree(
            self.volume, field=self.field, params=PartParams(threads=1), should_stop=should_stop
        )


class TreesAhead:
    """Makes trees in the background after a fit, and gives them to the layers of the field.

    Parameters
    ----------
    owner : QWidget
        Whose life timer and thread share.
    viewer : napari.Viewer
    """

    def __init__(self, owner: Any, viewer: Any) -> None:
        self._viewer = viewer
        self.runner = Runner(owner)
        self._next: Any = None

    def make(self, job: Any, voxels: int) -> None:
        """Run a job that returns a tree; one that still runs is stopped.

        Parameters
        ----------
        job : callable
        voxels : int
            Of all contrasts.
        """
        self._next = job if voxels <= MOST_VOXELS else None
        self.runner.stop()
        self._start()

    def _start(self) -> None:
        if self._next is None or self.runner.busy:
            return
        job, self._next = self._next, None

        def make(progress: ProgressCallback, should_stop: StopCallback) -> PartTree:
            give_way()  # a solve that runs meanwhile comes first
            return job(progress, should_stop)

        self.runner.start(
            make,
            returned=lambda tree: keep_tree(self._viewer.layers, tree),
            # Whoever needs the tree asks for it again, and is told why there is none.
            errored=lambda error: LOGGER.info("no tree of parts", exc_info=error),
            cancelled=lambda: None,
            finished=self._start,
        )

    def stop(self) -> None:
        """Stop what is being made."""
        self._next = None
        self.runner.stop()

    def shut_down(self) -> None:
        """Stop for good."""
        self._next = None
        self.runner.shut_down()
