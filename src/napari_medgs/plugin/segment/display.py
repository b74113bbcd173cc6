"""The result layer of a session: its result, a preview over it, and the volumes in it. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medgs.plugin.segment.jobs import LabelSlice
from napari_medgs.plugin.segment.layers import LabelView

if TYPE_CHECKING:
    from napari_medgs.segmentation import Session
    from napari_medgs.segmentation.session.changes import Delta


class ResultDisplay:
    """Keeps a Labels layer as a session's result is, changing only what changed.

    Parameters
    ----------
    session : Session
    view : LabelView
        Of the result layer.
    """

    def __init__(self, session: Session, view: LabelView) -> None:
        self._session, self.view = session, view
        self._preview: LabelSlice | None = None
        self._counts = {0: session.labels.size}
        if session.labels.any():
            values, counts = np.unique(session.labels, return_counts=True)
            self._counts = {int(v): int(n) for v, n in zip(values, counts, strict=True)}
        self.show_all()

    def show_all(self) -> None:
        """Write the whole result, into a new layer as a rule."""
        if self.view.fits():
            self.view.write_box((slice(None),) * 3, self._session.labels)
            self.view.refresh()

    def show_box(self, box: tuple[slice, ...]) -> None:
        """Write a box of the result."""
        if self.view.fits():
            self.view.write_box(box, self._session.labels[box])
            self.view.refresh()

    def show_delta(self, delta: Delta, *, back: bool = False) -> None:
        """Write what changed in the result, forwards or back, and count it."""
        change = delta.reverted() if back else delta
        self.count(change)
        if self.view.fits():
            self.view.write(change)
            self.view.refresh()

    def show_preview(self, preview: LabelSlice) -> None:
        """Show a slice that is not part of the result yet."""
        if not self.view.fits():
            return
        self.restore(refresh=False)
        self.view.write_box(preview.box, np.expand_dims(preview.labels, preview.axis))
        self._preview = preview
        self.view.refresh()

    def drop_preview(self) -> None:
        """Take a preview out of the layer again, but leave what the user painted over it."""
        if self._preview is None or not self.view.fits():
            return
        preview, self._preview = self._preview, None
        shown = self.view.array[preview.box]
        untouched = shown == np.expand_dims(preview.labels, preview.axis)
        shown[untouched] = self._session.labels[preview.box][untouched]

    def restore(self, *, refresh: bool = True) -> None:
        """Show the result alone, without a preview."""
        if self._preview is not None and self.view.fits():
            box = self._preview.box
            self.view.write_box(box, self._session.labels[box])
            if refresh:
                self.view.refresh()
        self._preview = None

    def count(self, change: Delta) -> None:
        """Note voxels that changed their class."""
        for value, number in change.counts().items():
            self._counts[value] = self._counts.get(value, 0) + number

    @property
    def volumes_ml(self) -> dict[int, float]:
        """Volume of every class in the result, in milliliters."""
        unit = self._session.grid.voxel_volume / 1000
        return {k: n * unit for k, n in self._counts.items() if k and n > 0}
