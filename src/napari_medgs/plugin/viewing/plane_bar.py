"""Buttons of the three anatomical planes."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QWidget

from napari_medgs.plugin.anatomy.follower import follow_planes

AXIAL, CORONAL, SAGITTAL = 2, 1, 0  # the axis across the plane: S-I, A-P, L-R
PLANES = {AXIAL: "Axial", CORONAL: "Coronal", SAGITTAL: "Sagittal"}
UNKNOWN = {AXIAL: "Across z", CORONAL: "Across y", SAGITTAL: "Across x"}
PLANE_KEYS = {"F6": AXIAL, "F7": CORONAL, "F8": SAGITTAL}


class PlaneBar(QWidget):
    """Three buttons that show a plane, upright where the orientation is known.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._follower = follow_planes(viewer)
        self.buttons: dict[int, QPushButton] = {}
        group = QButtonGroup(self)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        for key, (plane, name) in zip(PLANE_KEYS, PLANES.items(), strict=True):
            made = self.buttons[plane] = QPushButton(name)
            made.setCheckable(True)
            made.setToolTip(f"Show this plane ({key}). The place in the image stays.")
            made.setMinimumWidth(40)
            group.addButton(made)
            line.addWidget(made, 1)
            made.clicked.connect(lambda *_, plane=plane: self.show_plane(plane))
        self._group = group
        for emitter in self._emitters():
            emitter.connect(self.refresh)
        self.refresh()

    def _emitters(self) -> tuple[Any, ...]:
        dims, layers = self._viewer.dims.events, self._viewer.layers.events
        return dims.order, dims.ndisplay, dims.ndim, layers.inserted, layers.removed

    def show_plane(self, plane: int) -> None:
        """Show the plane across an anatomical axis: 0 L-R, 1 A-P, 2 S-I."""
        if self._follower is not None and self._viewer.dims.ndim >= 3:
            self._viewer.dims.ndisplay = 2
            self._follower.show_plane(plane)
        self.refresh()

    def refresh(self, event: Any = None) -> None:
        """Follow what is shown."""
        known = self._follower is not None and self._follower.directions is not None
        shown = None if self._follower is None else self._follower.shown_plane()
        self.setEnabled(self._viewer.dims.ndim >= 3)
        self._group.setExclusive(False)
        for plane, button in self.buttons.items():
            button.setText((PLANES if known else UNKNOWN)[plane])
            button.setChecked(plane == shown)
        self._group.setExclusive(True)

    def shut_down(self) -> None:
        """Stop listening."""
        for emitter in self._emitters():
            emitter.disconnect(self.refresh)
