"""The tree of parts of a session, made in the background once the first mask is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs.plugin.segment.context import SegmentContext
from napari_medgs.plugin.segment.parts.jobs import BuildParts
from napari_medgs.plugin.trees import TreesAhead, file_with_tree, keep_tree, tree_of

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartTree
    from napari_medgs.plugin.segment.controller import SegmentController
    from napari_medgs.plugin.segment.model import JobKind


class PartsAhead:
    """Makes the tree when nothing else runs, in a thread of its own.

    A solve that begins meanwhile need not wait; one that needs the tree waits for this one.

    Parameters
    ----------
    owner : QWidget
        Whose life timer and thread share.
    controller : SegmentController
    context : SegmentContext
    """

    def __init__(self, owner: Any, controller: SegmentController, context: SegmentContext) -> None:
        self._controller, self._context = controller, context
        self.making = TreesAhead(owner, context.viewer)
        self._due = False
        controller.prepared.connect(self._on_prepared)
        controller.parts_ready.connect(self._on_parts)
        controller.state.events.job.connect(self._on_job)

    def _on_prepared(self) -> None:
        self._due = True

    def _on_parts(self, is_there: bool) -> None:
        segmenter = self._controller.segmenter
        if is_there and segmenter is not None:
            keep_tree(self._context.viewer.layers, segmenter.parts.tree())

    def _on_job(self, job: JobKind | None) -> None:
        segmenter = self._controller.segmenter
        if segmenter is None:
            self._due = False
            self.making.stop()
        elif job is None and self._due and segmenter.is_prepared:
            self._due = False
            if not segmenter.parts.is_ready:
                build = BuildParts(segmenter, self._known(), threads=1)
                self.making.make(build, segmenter.volume.data.size)

    def _known(self) -> PartTree | Path | None:
        """Return the tree that the layers have of the field, or the file that may hold it."""
        layers, field = self._context.viewer.layers, self._controller.field
        tree = tree_of(layers, field)
        if tree is not None:
            return tree
        return self._controller.field_file or file_with_tree(layers, field)

    def shut_down(self) -> None:
        """Stop for good."""
        self.making.shut_down()
