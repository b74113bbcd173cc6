"""What the Discover widget asks of the core, ready for a thread. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.plugin.layer_frame import LayerFrame
from napari_medgs.plugin.layer_metadata import fitted_to
from napari_medgs.plugin.layer_volumes import labels_like, volume_from_layers
from napari_medgs.plugin.report import prepared_volume
from napari_medgs.plugin.trees import stored_tree

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.hierarchy import PartEmbedding, Partition, PartTree
    from napari_medgs.tissue import TissueParams, TissueResult

MOST_POINTS = 100  # parts on the map


@dataclass(frozen=True)
class ImageTask:
    """An image taken out of its layers.

    Attributes
    ----------
    sources : tuple of napari.layers.Image
    volume : Volume
    frame : LayerFrame
    field : GaussianField or None
        That a layer carries.
    remarks : tuple of str
        What was done to the image, for the user.
    """

    sources: tuple[Any, ...]
    volume: Volume
    frame: LayerFrame
    field: GaussianField | None
    remarks: tuple[str, ...]


def take_image(layers: Any, sources: Sequence[Any]) -> ImageTask:
    """Take an image out of its layers, with a field where a layer has one for it.

    Parameters
    ----------
    layers : napari.components.LayerList
    sources : sequence of napari.layers.Image

    Raises
    ------
    MedGSError
        For layers that cannot be used.
    """
    volume, frame = volume_from_layers(sources)
    volume, remarks = prepared_volume(volume)
    field = fitted_to(layers, sources[0], volume)
    return ImageTask(tuple(sources), volume, frame, field, remarks)


def region_from(
    layer: Any | None, task: ImageTask, *, resample: bool = False
) -> NDArray[np.bool_] | None:
    """Return where a Labels layer is not 0, on the canonical grid; see :func:`labels_like`."""
    if layer is None:
        return None
    return labels_like(layer, task.sources[0], task.frame, resample=resample) != 0


@dataclass(frozen=True)
class DivideTissues:
    """Divide an image into tissues."""

    task: ImageTask
    params: TissueParams
    region: NDArray[np.bool_] | None

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> TissueResult:
        """Return the result."""
        from napari_medgs.tissue import tissues

        return tissues(
            self.task.volume, field=self.task.field, region=self.region, params=self.params,
            progress=progress, should_stop=should_stop,
        )  # fmt: skip


@dataclass(frozen=True)
class FindParts:
    """Make the tree of an image, and a first cut of it.

    Attributes
    ----------
    task : ImageTask
    count : int
        Of parts.
    known : PartTree or None
        A tree of the task's field that there is already.
    file : Path or None
        Of the field; it may hold the tree.
    """

    task: ImageTask
    count: int
    known: PartTree | None = None
    file: Path | None = None

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> tuple[PartTree, Partition, NDArray[np.int32]]:
        """Return the tree, its partition, and the labels."""
        from napari_medgs.hierarchy import Partition, part_tree

        tree = self.known
        if tree is None:
            tree = stored_tree(self.file, self.task.field)
        if tree is None:
            tree = part_tree(
                self.task.volume, field=self.task.field, progress=progress, should_stop=should_stop
            )
        parts = Partition(tree, min(self.count, tree.leaves))
        return tree, parts, parts.labels()


@dataclass(frozen=True)
class DrawParts:
    """Draw a partition, cut anew where a count is given.

    Attributes
    ----------
    parts : Partition
    count : int or None
    rendered : bool
        Smooth; or fast, for a slider on its way.
    """

    parts: Partition
    count: int | None
    rendered: bool

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> NDArray[np.int32]:
        """Return the labels."""
        del progress, should_stop
        if self.count is not None:
            self.parts.set_count(min(self.count, self.parts.tree.leaves))
        return self.parts.labels(self.rendered)


@dataclass(frozen=True)
class MapParts:
    """Lay nodes of a tree out in the disc; none where there are fewer than two."""

    tree: PartTree
    nodes: tuple[int, ...]

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> PartEmbedding | None:
        """Return the points."""
        from napari_medgs.hierarchy import embed_parts

        del progress
        if len(self.nodes) < 2:
            return None
        return embed_parts(self.tree, 2, parts=self.nodes, should_stop=should_stop)
