"""Keeps a viewer's planes upright as layers, axes and dimensions change."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from napari_medgs.plugin.anatomy.letters import BorderLetters
from napari_medgs.plugin.anatomy.planes import (
    Directions,
    is_upright,
    known_directions,
    slice_plane,
)
from napari_medgs.plugin.canvas_context import keep_context
from napari_medgs.plugin.layer_metadata import unwrap

_FOLLOWERS: weakref.WeakKeyDictionary[Any, PlaneFollower] = weakref.WeakKeyDictionary()


def follow_planes(viewer: Any = None) -> PlaneFollower | None:
    """Show the planes of a viewer upright from now on; once is enough.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        napari's current one by default.

    Returns
    -------
    PlaneFollower or None
        None where there is no viewer.
    """
    if viewer is None:
        from napari import current_viewer

        viewer = current_viewer()
    viewer = unwrap(viewer)
    if viewer is None:
        return None
    found = _FOLLOWERS.get(viewer.layers)
    if found is None:
        found = _FOLLOWERS[viewer.layers] = PlaneFollower(viewer)
    return found


class PlaneFollower:
    """Sets camera and order of the axes of one viewer by the orientation of its layers.

    Nothing is changed where no layer's orientation is known, or where layers disagree.

    Parameters
    ----------
    viewer : napari.Viewer
    canvas : object, optional
        Where its letters are shown; that of the viewer's window by default.
    """

    def __init__(self, viewer: Any, canvas: Any = None) -> None:
        self._viewer = weakref.ref(viewer)
        self.directions: Directions | None = None
        self.letters = BorderLetters(viewer, canvas)
        keep_context(viewer, canvas)
        self._plain = tuple(_camera(viewer).orientation)
        self._before = tuple(viewer.dims.order)
        self._turned_from: tuple[int, ...] | None = None
        self._turning = False
        self._oriented = False
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        for emitter in (viewer.layers.events.inserted, viewer.layers.events.removed):
            emitter.connect(self._on_layers)
        viewer.dims.events.order.connect(self._on_order)
        viewer.dims.events.ndisplay.connect(self._show)
        viewer.dims.events.ndim.connect(self._show)
        self._on_layers()

    def _on_layers(self, event: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        before, self.directions = self.directions, known_directions(viewer.layers)
        if before is None and self.directions is not None:
            for layer in list(viewer.layers):
                self.show_slices(layer)
        self._show()

    def show_slices(self, layer: Any) -> None:
        """Show the plane in which a layer of thick slices was taken, the first time it is asked.

        Parameters
        ----------
        layer : napari.layers.Layer
        """
        viewer, axis = self._viewer(), slice_plane(layer)
        if viewer is None or axis is None or layer in self._seen:
            return
        self._seen.add(layer)
        directions = self.directions or Directions("SPL")
        order = directions.order_for(axis)
        self._turned_from = (order[0], order[2], order[1]) if axis == 1 else None
        self._set_order(order)

    def show_plane(self, kind: int) -> None:
        """Show the plane across an anatomical axis, upright; the place in the image stays.

        Parameters
        ----------
        kind : int
            0 for the left-right axis, 1 for anterior-posterior, 2 for superior-inferior. Where
            the orientation is not known, the last, the middle or the first axis of the layers.
        """
        directions = self.directions or Directions("SPL")
        axis = next(axis for axis in range(3) if directions.kind(axis) == kind)
        self._turned_from = None
        self._set_order(directions.order_for(axis))
        self._show()

    def shown_plane(self) -> int | None:
        """Return the kind of the plane that is shown, as :meth:`show_plane` takes it, if any."""
        viewer, order = self._viewer(), self._order()
        if viewer is None or viewer.dims.ndisplay != 2 or order is None:
            return None
        return (self.directions or Directions("SPL")).kind(order[0])

    def _order(self) -> tuple[int, int, int] | None:
        """Return hidden, vertical and horizontal axis, None where other axes are displayed."""
        viewer = self._viewer()
        if viewer is None or viewer.dims.ndim < 3:
            return None
        axes = [axis - (viewer.dims.ndim - 3) for axis in viewer.dims.order]
        shown = [axis for axis in axes[-2:] if axis >= 0]
        if len(shown) < 2:
            return None
        (hidden,) = {0, 1, 2} - set(shown)
        return hidden, shown[0], shown[1]

    def _set_order(self, order: tuple[int, int, int]) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        extra = viewer.dims.ndim - 3
        if extra < 0:
            return
        whole = (*range(extra), *(axis + extra for axis in order))
        self._turning = True
        try:
            viewer.dims.order = whole
        finally:
            self._turning = False
            self._before = tuple(viewer.dims.order)

    def _on_order(self, event: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None or self._turning:
            return
        before, now = self._before, tuple(viewer.dims.order)
        self._before = now
        order = self._order()
        if self.directions is not None and order is not None and now != before:
            self._stand_up(before, now, order)
        self._show()

    def _stand_up(
        self, before: tuple[int, ...], now: tuple[int, ...], order: tuple[int, int, int]
    ) -> None:
        """Turn a plane that lies on its side, unless the user has just transposed it."""
        assert self.directions is not None
        turned, self._turned_from = self._turned_from, None
        if now == (*before[:-2], before[-1], before[-2]):
            return
        extra = len(now) - 3
        if turned is not None and now == tuple(int(a) for a in np.roll(before, 1)):
            # Rolling goes on from where napari would be, or it would never reach all planes.
            a, b, c = np.roll(turned, 1)
            order = (int(a), int(b), int(c))
        if min(order) < 0 or extra < 0:
            return
        if is_upright(order, self.directions):
            if tuple(axis + extra for axis in order) != now[extra:]:
                self._set_order(order)
            return
        self._turned_from = order
        self._set_order(self.directions.order_for(order[0]))

    def _show(self, event: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        order = self._order()
        if self.directions is None or order is None:
            if self._oriented:
                self._oriented = False
                _orient(viewer, self._plain)
            self.letters.show({})
            return
        self._oriented = True
        _orient(viewer, self.directions.orientation(order))
        flat = viewer.dims.ndisplay == 2
        self.letters.show(self.directions.borders(order) if flat else {})


def _camera(viewer: Any) -> Any:
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def _orient(viewer: Any, orientation: tuple[Any, ...]) -> None:
    camera = _camera(viewer)
    if tuple(str(part) for part in camera.orientation) != tuple(str(p) for p in orientation):
        camera.orientation = orientation
