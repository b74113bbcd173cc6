"""Three linked planes and the surface, two by two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QSplitter

from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.deferred import call_later
from napari_medgs.plugin.report import LOGGER, show_hint
from napari_medgs.plugin.viewing.plane_bar import AXIAL, CORONAL, SAGITTAL
from napari_medgs.plugin.viewing.side_view import Crosshair, PlaneView, SpaceView

PLANES = (AXIAL, CORONAL, SAGITTAL)
SETTLE_MS = 250  # a canvas may be laid out late where the machine is busy


def fitted_size(model: Any) -> tuple[int, ...]:
    """Return the size (height, width) that a viewer takes its canvas to have."""
    canvas = getattr(model, "canvas", None)  # since napari 0.9
    return tuple(model._canvas_size if canvas is None else canvas.size)


class FourViews:
    """Adds two planes and a 3D view to napari's own canvas while a button is down.

    All planes show one place; hold Shift and move the mouse to choose it. Strokes work in all.

    Parameters
    ----------
    viewer : napari.Viewer
    button : QPushButton
        Checkable.
    """

    opened = Signal()
    closing = Signal()

    def __init__(self, viewer: Any, button: QPushButton) -> None:
        self._viewer, self._button = viewer, button
        self.planes: list[PlaneView] = []
        self.space: SpaceView | None = None
        self._column: QSplitter | None = None
        self._cross: Crosshair | None = None
        self._moving = False
        self._links: list[tuple[Any, Callable[..., Any]]] = []
        self._steps: Iterator[None] = iter(())
        self.follows_shift = True  # whether the crosshair follows the mouse while Shift is held
        button.toggled.connect(self._on_toggled)

    @property
    def is_on(self) -> bool:
        """Whether there are four views."""
        return bool(self.planes)

    def _on_toggled(self, on: bool) -> None:
        if on and not self.is_on:
            if self._viewer.dims.ndim != 3:
                show_hint("Four views need a volume: open an image with three axes.")
                self._button.setChecked(False)
                return
            self._steps = self._open()
            self._advance()
        elif not on:
            before = {id(self._viewer): fitted_size(self._viewer)} if self.is_on else None
            self.close()
            if before is not None:
                self._fit(5, before, on=False)  # a small picture in a large canvas otherwise

    def _advance(self) -> None:
        """Take the next step of opening; the window answers between them."""
        try:
            going = next(self._steps, self) is not self
        except (AttributeError, ImportError, TypeError, RuntimeError) as error:
            LOGGER.warning("no four views with this napari", exc_info=error)
            show_hint("This version of napari cannot show four views.")
            self.close()
            return
        if going:
            call_later(self._button, self._advance)

    def _open(self) -> Iterator[None]:
        viewer = self._viewer
        main = viewer.window._qt_viewer
        viewer.dims.ndisplay = 2
        for _ in range(2):
            view = PlaneView(viewer)
            self.planes.append(view)
            yield
            yield from view.fill()
            yield
        self._assign()  # before they are seen: else both show what the main canvas does
        self._share_place(viewer)
        yield
        self.space = SpaceView(viewer)
        yield
        # Napari's own canvas stays where it is: to move it would lose its textures.
        column = self._column = QSplitter(Qt.Orientation.Vertical)
        column.addWidget(self.planes[0].widget)
        main.parentWidget().layout().addWidget(column, 1)
        main.parentWidget().layout().setStretchFactor(main, 1)
        yield  # each canvas compiles its shaders when it is first drawn
        column.addWidget(self.space.widget)
        yield
        main.addWidget(self.planes[1].widget)
        yield
        height = max(main.height(), 2)
        main.setSizes([height // 2] * main.count())
        column.setSizes([height // 2, height // 2])
        self._cross = Crosshair(viewer, main.canvas)
        dims, layers = viewer.dims.events, viewer.layers.events
        self._link(dims.point, lambda event: self._share_place(viewer))
        self._link(dims.order, lambda event: self._assign())
        self._link(layers.inserted, lambda event: self._sync())
        self._link(layers.removed, lambda event: self._sync())
        self._link(layers.moved, lambda event: self._sync())
        self._link(viewer.layers.selection.events.active, lambda event: self._sync_active())
        for view in self.planes:
            model = view.model
            self._link(model.dims.events.point, lambda event, m=model: self._share_place(m))
        for model in (viewer, *(view.model for view in self.planes)):
            model.mouse_move_callbacks.append(self._on_move)
        self._assign()
        self._share_place(viewer)
        self.opened.emit()
        yield
        self._fit(5)

    def _fit(
        self, times: int, before: Mapping[int, tuple[int, ...]] | None = None, on: bool = True
    ) -> None:
        """Fit the planes into their canvases, and again where these have got other sizes."""
        if self.is_on != on:
            return
        sizes = {}
        for model in self._models():
            sizes[id(model)] = fitted_size(model)
            if before is None or before.get(id(model)) != sizes[id(model)]:
                model.reset_view()
        if times > 1:
            call_later(self._button, partial(self._fit, times - 1, sizes, on), SETTLE_MS)

    def _link(self, emitter: Any, callback: Callable[..., Any]) -> None:
        emitter.connect(callback)
        self._links.append((emitter, callback))

    def _models(self) -> list[Any]:
        return [self._viewer, *(view.model for view in self.planes)]

    def _assign(self) -> None:
        """Show the planes that napari's own canvas does not show."""
        follower = follow_planes(self._viewer)
        shown = None if follower is None else follower.shown_plane()
        if shown is None:
            return
        others = [plane for plane in PLANES if plane != shown]
        for view, plane in zip(self.planes, others, strict=True):
            if view.shown_plane() != plane:
                view.show_plane(plane)

    def _share_place(self, source: Any) -> None:
        if self._moving:
            return
        self._moving = True
        try:
            for model in self._models():
                if model is not source and model.dims.ndim == source.dims.ndim:
                    model.dims.point = source.dims.point
        finally:
            self._moving = False

    def _on_move(self, viewer: Any, event: Any) -> None:
        """Move the crosshair to the mouse while Shift is held."""
        held = "Shift" in event.modifiers and self.follows_shift
        if held and viewer.dims.ndisplay == 2 and not event.is_dragging:
            viewer.dims.point = tuple(
                min(max(p, r.start), r.stop)
                for p, r in zip(event.position, viewer.dims.range, strict=True)
            )

    def _sync(self) -> None:
        for view in self.planes:
            view.sync_layers()

    def _sync_active(self) -> None:
        for view in self.planes:
            view.sync_active()

    def show_surface(self, data: Any, image: Any, angles: tuple[float, float, float]) -> None:
        """Show the mask's surface in the fourth view, if there are four."""
        if self.space is not None and image is not None:
            self.space.show(data, image, angles)

    def close(self) -> None:
        """Leave napari's own canvas alone again."""
        self._steps = iter(())
        if self.is_on:
            self.closing.emit()
        for emitter, callback in self._links:
            emitter.disconnect(callback)
        self._links = []
        for model in self._models():
            if self._on_move in model.mouse_move_callbacks:
                model.mouse_move_callbacks.remove(self._on_move)
        if self._cross is not None:
            self._cross.close()
        for view in (*self.planes, *([self.space] if self.space else [])):
            view.close()
        self.planes, self.space, self._cross = [], None, None
        if self._column is not None:
            self._column.setParent(None)
            self._column.deleteLater()
            self._column = None
        if self._button.isChecked():
            self._button.setChecked(False)
