"""Lines around parts on a canvas. No layers: nothing is listed, saved or exported."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOVERED, CLICKED = (1.0, 0.84, 0.31, 1.0), (1.0, 1.0, 1.0, 1.0)
SHADE = (0.0, 0.0, 0.0, 0.8)
WIDTH, SHADE_WIDTH = 2.0, 4.0
ABOVE = 800_000  # all layers, below the crosshair
TEXT_SIZE, LETTER, GAP = 10, 8, 14  # points, pixels


class OutlineNode:
    """Closed lines on a canvas, dark below and bright above, so that they show on any image.

    Parameters
    ----------
    canvas : object
        Napari's.
    color : (r, g, b, a)
    parent : vispy.scene.Node, optional
        In whose coordinates the lines are; those of the viewer's world by default.
    """

    def __init__(
        self, canvas: Any, color: tuple[float, float, float, float], parent: Any = None
    ) -> None:
        from vispy.scene.visuals import Line  # type: ignore[import-untyped]

        parent = canvas.view.scene if parent is None else parent
        self._nodes = []
        for order, (shade, width) in enumerate(((SHADE, SHADE_WIDTH), (color, WIDTH))):
            node = Line(
                np.zeros((2, 2)), color=shade, width=width, parent=parent or canvas.view.scene
            )
            node.order = ABOVE + order
            node.set_gl_state("translucent", depth_test=False)
            node.visible = False
            self._nodes.append(node)

    @property
    def is_shown(self) -> bool:
        """Whether there are lines."""
        return any(node.visible for node in self._nodes)

    def show(self, lines: Sequence[NDArray[Any]]) -> None:
        """Draw lines of (x, y), or none."""
        if lines:
            points = np.concatenate(lines).astype(np.float32)
            connect = np.ones(len(points), bool)
            connect[np.cumsum([len(line) for line in lines]) - 1] = False
        for node in self._nodes:
            if lines:
                node.set_data(points, connect=connect)
            node.visible = bool(lines)

    def close(self) -> None:
        """Take the lines away."""
        for node in self._nodes:
            with contextlib.suppress(RuntimeError):
                node.parent = None
        self._nodes = []


class PointerText:
    """A few words beside the mouse.

    Parameters
    ----------
    canvas : object
        Napari's.
    """

    def __init__(self, canvas: Any) -> None:
        from vispy.scene.visuals import Text

        self._canvas = canvas
        self._nodes = []
        for order, color in enumerate((SHADE, HOVERED)):
            node = Text(
                "", color=color, bold=True, font_size=TEXT_SIZE, anchor_x="left",
                anchor_y="bottom", parent=canvas.view,
            )  # fmt: skip
            node.order = 1_000_000 + order
            node.visible = False
            self._nodes.append(node)

    def show(self, text: str, pixel: Sequence[float] | None) -> None:
        """Show a text beside a pixel of the canvas; none without a place."""
        for node in self._nodes:
            node.visible = bool(text) and pixel is not None
        if not text or pixel is None:
            return
        width = self._canvas.size[1]
        x, y = float(pixel[0]), float(pixel[1]) + GAP
        fits = x + GAP + len(text) * LETTER < width
        x = x + GAP if fits else x - GAP
        for node in self._nodes:
            node.anchors = ("left" if fits else "right", "bottom")
        shade, words = self._nodes
        shade.text = [text] * 4
        shade.pos = [(x + a, y + b) for a, b in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        words.text, words.pos = text, (x, y)

    def close(self) -> None:
        """Take the text away."""
        for node in self._nodes:
            with contextlib.suppress(RuntimeError):
                node.parent = None
        self._nodes = []
