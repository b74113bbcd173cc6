"""One image over another up to a line on the canvas, which a slider moves."""

from __future__ import annotations

import contextlib
from typing import Any

from napari_medgs.errors import ParameterError


class Swipe:
    """Shows a layer left of a line only, so that what is below it shows on the right.

    The pixels are clipped as they are drawn: neither data nor transforms change.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None
        self._node: Any = None
        self._clip: Any = None
        self._share = 0.5

    @property
    def is_on(self) -> bool:
        """Whether a layer is clipped."""
        return self._clip is not None

    def begin(self, layer: Any, share: float = 0.5) -> None:
        """Show a layer on the left share of the canvas.

        Raises
        ------
        ParameterError
            In the 3D view, and where this version of napari does not allow it.
        """
        self.end()
        if self._viewer.dims.ndisplay != 2:
            raise ParameterError("The swipe works in slices: leave the 3D view first.")
        from vispy.visuals.filters import Clipper  # type: ignore[import-untyped]

        try:
            canvas = self._canvas()
            node = canvas.layer_to_visual[layer].node
            clip = Clipper(bounds=(0, 0, 1, 1))
            node.attach(clip)
        except (AttributeError, KeyError, TypeError) as error:
            raise ParameterError("This version of napari cannot show a swipe.") from error
        self._layer, self._node, self._clip = layer, node, clip
        canvas.events.resize.connect(self._place)
        self._viewer.dims.events.ndisplay.connect(self.end)
        self.move(share)

    def move(self, share: float) -> None:
        """Move the line to a share of the canvas's width, 0 to 1."""
        self._share = min(max(float(share), 0.0), 1.0)
        self._place()

    def _canvas(self) -> Any:
        return self._viewer.window._qt_viewer.canvas

    def _place(self, event: Any = None) -> None:
        if self._clip is None:
            return
        width, height = self._canvas()._scene_canvas.physical_size
        self._clip.bounds = (0, 0, width * self._share, height)
        self._node.update()

    def end(self, event: Any = None) -> None:
        """Show all of the layer again."""
        if self._clip is None:
            return
        node, clip = self._node, self._clip
        self._layer = self._node = self._clip = None
        self._viewer.dims.events.ndisplay.disconnect(self.end)
        with contextlib.suppress(AttributeError, RuntimeError, ValueError):
            self._canvas().events.resize.disconnect(self._place)
            node.detach(clip)
            node.update()
