"""One more canvas that shows a viewer's layers in another plane, or a surface in 3D."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from qtpy.QtCore import QCoreApplication, QEvent, Qt
from qtpy.QtWidgets import QLabel

from napari_medgs.plugin.anatomy.follower import PlaneFollower
from napari_medgs.plugin.viewing.mirror import LayerMirror, can_mirror

CROSS = (1.0, 0.86, 0.35, 0.75)
AWAITED = "3D: the surface of the mask"
OUTGROWN = 1.5  # times the size that the camera was fitted to, from which it is fitted again


class Crosshair:
    """Two lines through the place that all planes share.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    canvas : object
        Its canvas.
    """

    def __init__(self, viewer: Any, canvas: Any) -> None:
        from vispy.scene.visuals import Line  # type: ignore[import-untyped]

        self._viewer = viewer
        self._lines = Line(
            np.zeros((4, 2)), color=CROSS, connect="segments", parent=canvas.view.scene
        )
        self._lines.order = 900_000
        self._emitters = (viewer.dims.events.point, viewer.dims.events.order,
                          viewer.dims.events.ndisplay)  # fmt: skip
        for emitter in self._emitters:
            emitter.connect(self.place)
        self.place()

    def place(self, event: Any = None) -> None:
        """Draw the lines where the place is."""
        dims = self._viewer.dims
        self._lines.visible = dims.ndisplay == 2 and dims.ndim >= 3
        if not self._lines.visible:
            return
        down, across = dims.displayed
        y, x = dims.point[down], dims.point[across]
        (top, bottom), (left, right) = (
            (dims.range[axis].start, dims.range[axis].stop) for axis in (down, across)
        )
        self._lines.set_data(np.array([[left, y], [right, y], [x, top], [x, bottom]], np.float32))

    def close(self) -> None:
        """Take the lines away."""
        for emitter in self._emitters:
            emitter.disconnect(self.place)
        self._lines.parent = None


@cache
def _canvas_class() -> Any:
    from napari.qt import QtViewer

    class SideCanvas(QtViewer):
        """The widget of napari's canvas, which leaves the program's shortcuts as they are."""

        def _bind_shortcuts(self) -> None:
            """Bind nothing: it takes most of the time, and napari's own canvas has done it."""

    return SideCanvas


def _delete(widget: Any) -> None:
    """Delete a closed canvas now, not when the event loop ends, which is with the program."""
    with contextlib.suppress(RuntimeError):  # Qt has deleted it already
        widget.deleteLater()
        QCoreApplication.sendPostedEvents(widget, QEvent.Type.DeferredDelete)


class SideView:
    """A canvas beside napari's own, with copies of its layers.

    Parameters
    ----------
    main : napari.Viewer
    """

    def __init__(self, main: Any) -> None:
        from napari.components import ViewerModel

        self._main = main
        self.model = ViewerModel()
        self.model.theme = main.theme
        self.widget = _canvas_class()(self.model)
        self.widget.dims.setVisible(False)  # the crosshair moves along
        self.widget.setAcceptDrops(False)
        self.widget.setMinimumSize(80, 80)
        self.widget.canvas.native.setMinimumSize(40, 40)
        self.mirrors: dict[Any, LayerMirror] = {}

    def share_keys(self) -> None:
        """Let keys do what they do on napari's own canvas."""
        handler = self._main.window._qt_viewer._key_map_handler
        self.widget._key_map_handler.keymap_providers = list(handler.keymap_providers)

    def close(self) -> None:
        """Close the canvas; the layers stay as they are."""
        for mirror in self.mirrors.values():
            mirror.close()
        self.mirrors = {}
        self.widget.close()
        self.widget.setParent(None)
        _delete(self.widget)


class PlaneView(SideView):
    """One plane of the layers, upright, with a crosshair.

    Parameters
    ----------
    main : napari.Viewer
    """

    def __init__(self, main: Any) -> None:
        super().__init__(main)
        self.follower: PlaneFollower | None = None
        self.crosshair: Crosshair | None = None

    def fill(self) -> Iterator[None]:
        """Copy the layers, one a step: each takes the main thread some tenths of a second."""
        for _ in self._copies():
            yield
        self.sync_active()
        self.follower = PlaneFollower(self.model, self.widget.canvas)
        self.crosshair = Crosshair(self.model, self.widget.canvas)

    def sync_layers(self) -> None:
        """Have a copy of every layer that can be shown, in the same order."""
        for _ in self._copies():
            pass
        self.sync_active()

    def _copies(self) -> Iterator[None]:
        layers = [layer for layer in self._main.layers if can_mirror(layer)]
        for layer in [x for x in self.mirrors if x not in layers]:
            mirror = self.mirrors.pop(layer)
            mirror.close()
            self.model.layers.remove(mirror.copy)
        for place, layer in enumerate(layers):
            if layer not in self.mirrors:
                mirror = self.mirrors[layer] = LayerMirror(layer)
                self.model.layers.insert(place, mirror.copy)
                yield
            copy = self.mirrors[layer].copy
            now = self.model.layers.index(copy)
            if now != place:
                self.model.layers.move(now, place)

    def sync_active(self) -> None:
        """Paint in the copy of the layer that is active in napari's own canvas."""
        mirror = self.mirrors.get(self._main.layers.selection.active)
        self.model.layers.selection.active = None if mirror is None else mirror.copy
        self.share_keys()

    def show_plane(self, plane: int) -> None:
        """Show the plane across an anatomical axis and let it fill the canvas."""
        if self.follower is not None:
            self.follower.show_plane(plane)
            self.model.reset_view()

    def shown_plane(self) -> int | None:
        """Return the anatomical axis that the plane lies across, if it is known."""
        return None if self.follower is None else self.follower.shown_plane()

    def close(self) -> None:
        """Close the canvas."""
        if self.crosshair is not None:
            self.crosshair.close()
        super().close()


class SpaceView(SideView):
    """The surface of the mask in 3D.

    Parameters
    ----------
    main : napari.Viewer
    """

    def __init__(self, main: Any) -> None:
        super().__init__(main)
        self.layer: Any = None
        self.follower: PlaneFollower | None = None
        self._fitted = 0.0  # diagonal of the surface that the camera was fitted to
        # A label: text on the canvas takes the main thread 0.2 s, to draw its letters.
        self.words = QLabel(AWAITED, self.widget.canvas.native)
        self.words.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.words.setStyleSheet("background: transparent; padding: 10px;")

    def show(self, data: Any, image: Any, angles: tuple[float, float, float]) -> None:
        """Show triangles.

        Parameters
        ----------
        data : object
            With ``vertices``, ``faces`` and ``colors``.
        image : napari.layers.Image
            Gives the units, and which way the axes run in the patient.
        angles : (float, float, float)
            Of the camera at first.
        """
        self.words.hide()
        if self.layer is not None:
            self.layer.vertex_colors = None
            self.layer.data = (data.vertices, data.faces)
            self.layer.vertex_colors = data.colors
            if self._diagonal() > OUTGROWN * self._fitted:
                self._fit(tuple(getattr(self.model, "scene", self.model).camera.angles))
            return
        self.model.dims.ndisplay = 3
        self.layer = self.model.add_surface(
            (data.vertices, data.faces),
            vertex_colors=data.colors,
            shading="none",
            units=image.units,
            axis_labels=image.axis_labels,
            metadata=dict(image.metadata),
        )
        camera = getattr(self.model, "scene", self.model).camera
        source = getattr(self._main, "scene", self._main).camera
        camera.orientation = source.orientation
        self.follower = PlaneFollower(self.model, self.widget.canvas)
        self._fit(angles)

    def _diagonal(self) -> float:
        low, high = np.asarray(self.layer.extent.world, float)
        return float(np.linalg.norm(high - low))

    def _fit(self, angles: tuple[float, ...]) -> None:
        """Let the surface fill the canvas, seen from a direction."""
        self._fitted = self._diagonal()
        self.model.reset_view(margin=0.15)
        getattr(self.model, "scene", self.model).camera.angles = angles
