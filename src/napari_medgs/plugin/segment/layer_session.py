"""A segmenter whose strokes and result are shown in two Labels layers. No Qt.

The layers and the segmenter are kept equal here; what the user changes is passed on here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.plugin.segment.display import ResultDisplay
from napari_medgs.plugin.segment.jobs import Box, LabelSlice
from napari_medgs.plugin.segment.layers import LabelView

if TYPE_CHECKING:
    from napari_medgs.hierarchy import PartSelection
    from napari_medgs.segmentation import InteractiveSegmenter, SegmentResult
    from napari_medgs.segmentation.session.history import Step

EVERYWHERE = (slice(None),) * 3


class LayerSession:
    """A segmenter and the layers of its strokes and of its result.

    All methods are for the main thread.

    Parameters
    ----------
    segmenter : InteractiveSegmenter
    strokes : LabelView
        Of the layer that the user paints in.
    result : LabelView
        Of the layer that shows the result.
    """

    def __init__(
        self, segmenter: InteractiveSegmenter, strokes: LabelView, result: LabelView
    ) -> None:
        self.segmenter, self.strokes = segmenter, strokes
        self.display = ResultDisplay(segmenter.session, result)

    def sync_strokes(self, box: Box | None = None) -> bool:
        """Record what was painted in the strokes layer as one step.

        Parameters
        ----------
        box : tuple of slice, optional
            Where to look, on the canonical grid; everywhere by default.

        Returns
        -------
        bool
            Whether anything was painted.
        """
        if not self.strokes.fits():
            return False
        part = box or EVERYWHERE
        self._limit(part)
        return self.segmenter.set_scribbles(self.strokes.array[part], box)

    @property
    def took_points_back(self) -> bool:
        """Whether the last step, of strokes, has also changed points that it contradicts."""
        done = self.segmenter.session.history.done
        return bool(done) and done[-1].settings_before is not None

    def describe_gaps(self) -> str:
        """Return a sentence on slices that lack a few marks to be fully labeled, or nothing."""
        from napari_medgs.segmentation.prompts.nearly_full import (
            describe_nearly_full,
            find_nearly_full_slices,
        )

        session, frame = self.segmenter.session, self.strokes.frame
        named = []
        for gap in find_nearly_full_slices(session.strokes, session.settings.unlabeled):
            if (gap.axis, gap.index) in session.settings.fully_labeled:
                continue
            size = frame.grid.shape[gap.axis]  # the slice is named as the viewer counts
            index = size - 1 - gap.index if frame.flips[gap.axis] else gap.index
            named.append((f"slice {index}", gap.missing))
        return describe_nearly_full(named) if named else ""

    def _limit(self, part: Box) -> None:
        """Take back what was painted outside of the range of intensities."""
        session = self.segmenter.session
        params, unlabeled = session.settings.params, session.settings.unlabeled
        if params.lowest is None and params.highest is None:
            return
        from napari_medgs.segmentation.postprocess.class_edits import intensity_mask

        painted, before = self.strokes.array[part], session.strokes[part]
        image = self.segmenter.volume.channel(0)[part]
        classes = (painted != unlabeled) & (painted != session.prompts().background_value)
        outside = (painted != before) & classes
        outside &= ~intensity_mask(image, params.lowest, params.highest)
        if outside.any():
            painted[outside] = before[outside]
            self.strokes.refresh()

    def sync_result(self, box: Box | None = None) -> bool:
        """Record what was painted on the result as corrections; see :meth:`sync_strokes`.

        Raises
        ------
        ParameterError
            When background was painted and there is no value for it; the result is as before.
        """
        session, display = self.segmenter.session, self.display
        if not display.view.fits() or not self.strokes.fits():
            return False
        part = box or EVERYWHERE
        display.drop_preview()
        edited = display.view.array
        background = session.prompts().background_value
        if background:
            region = edited[part]
            region[region == background] = 0
        try:
            changed = self.segmenter.correct(edited, box)
        finally:
            display.show_box(part)
        if changed:
            self.strokes.write_box(part, session.strokes[part])
            self.strokes.refresh()
            step = session.history.done[-1]
            if step.result is not None:
                display.count(step.result)
        return changed

    def set_mask(self, mask: NDArray[Any]) -> bool:
        """Make a mask the result, as one step, and show it; return whether it is another one."""
        return self._take_mask(lambda: self.segmenter.set_mask(mask))

    def keep_mask(self, keep: bool) -> bool:
        """Keep the mask from now on, or solve from the strokes alone again, as one step.

        Returns
        -------
        bool
            Whether anything was different.

        Raises
        ------
        ParameterError
            When there is no mask to keep.
        """
        if keep:
            return self._take_mask(self.segmenter.keep_mask)
        kept = self.segmenter.session.starts_from_mask
        self.segmenter.set_initial(None)
        return kept

    def _take_mask(self, take: Callable[[], bool]) -> bool:
        """Let the segmenter take a mask and show it; return whether it did."""
        self.display.restore(refresh=False)
        try:
            taken = take()
        finally:
            self.display.view.refresh()
        if taken:
            step = self.segmenter.session.history.done[-1]
            if step.strokes is not None:
                self.strokes.write(step.strokes)
                self.strokes.refresh()
            if step.result is not None:
                self.display.show_delta(step.result)
        return taken

    def set_prior(self, probabilities: NDArray[Any]) -> bool:
        """Start from probabilities, as one step, and show their mask; return whether it is new."""
        self.display.restore(refresh=False)
        if not self.segmenter.set_prior(probabilities):
            self.display.view.refresh()
            return False
        step = self.segmenter.session.history.done[-1]
        if step.result is not None:
            self.display.show_delta(step.result)
        return True

    def add_part(
        self, label: int, part: PartSelection, mask: NDArray[Any], *, instead: bool = False
    ) -> bool:
        """Give a part a class, as one step, and show it.

        Parameters
        ----------
        label : int
            0 takes the part out of the mask.
        part : PartSelection
        mask : (Z, Y, X) ndarray of bool
            Its voxels.
        instead : bool
            Undo the last step first.

        Returns
        -------
        bool
            Whether any voxel was of another class.
        """
        if instead:
            self.move_in_history(back=True)
        self.display.restore(refresh=False)
        parts = self.segmenter.parts
        if label:
            changed = parts.add(label, part, mask=mask)
        else:
            changed = parts.remove(part, mask=mask)
        step = self.segmenter.session.history.done[-1] if changed else None
        if step is not None and step.result is not None:
            self.display.show_delta(step.result)
        else:
            self.display.view.refresh()
        return changed

    def update_settings(self, **settings: Any) -> bool:
        """Change settings as one step; return whether anything was different."""
        return self.segmenter.update_settings(**settings)

    def move_in_history(self, *, back: bool) -> Step | None:
        """Undo or redo a step and show it; return the step, if there was one."""
        step = self.segmenter.undo() if back else self.segmenter.redo()
        if step is None:
            return None
        self.display.restore()
        if step.strokes is not None:
            self.strokes.write(step.strokes.reverted() if back else step.strokes)
            self.strokes.refresh()
        if step.result is not None:
            self.display.show_delta(step.result, back=back)
        return step

    def set_result(self, result: SegmentResult) -> None:
        """Make a result the segmenter's and show it."""
        self.display.restore(refresh=False)
        self.display.show_delta(self.segmenter.set_result(result))

    def set_provisional(self, labels: NDArray[Any]) -> None:
        """Show a mask that the next full solve replaces."""
        self.display.restore(refresh=False)
        session = self.segmenter.session
        self.display.show_delta(session.set_result(labels, is_current=False))

    def clear_result(self) -> bool:
        """Make an empty mask the segmenter's and show it; return whether there was another."""
        labels = self.segmenter.session.labels
        if not labels.any():
            return False
        self.display.restore(refresh=False)
        empty = np.zeros_like(labels)
        self.display.show_delta(self.segmenter.session.set_result(empty, is_current=False))
        return True

    def show_preview(self, preview: LabelSlice) -> None:
        """Show a slice that is not part of the result yet."""
        self.display.show_preview(preview)

    def show_in(self, view: LabelView) -> None:
        """Show the result in another layer from now on."""
        self.display = ResultDisplay(self.segmenter.session, view)

    def close(self) -> None:
        """Leave the result alone in its layer, without a preview."""
        self.display.restore()
