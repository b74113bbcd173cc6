"""Letters at the borders of napari's canvas."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from napari_medgs.plugin.report import LOGGER

INSET = 16  # pixels from the border
SIZE = 13
COLOR, OUTLINE = (1.0, 0.86, 0.35, 1.0), (0.0, 0.0, 0.0, 1.0)
OFFSETS = ((-1, 0), (1, 0), (0, -1), (0, 1))


class BorderLetters:
    """Four letters that stay at the middles of the canvas's borders.

    napari's own text overlay has no places at the middles of the left and right border.

    Parameters
    ----------
    viewer : napari.Viewer
        One without a window gets no letters.
    canvas : object, optional
        Where to show them; that of the viewer's window by default.
    """

    def __init__(self, viewer: Any, canvas: Any = None) -> None:
        self.shown: dict[str, str] = {}
        self._canvas: Any = lambda: None
        self._nodes: list[Any] = []
        try:
            self._make(viewer.window._qt_viewer.canvas if canvas is None else canvas)
        except (AttributeError, TypeError, RuntimeError) as error:
            LOGGER.info("no letters at the borders of this viewer's canvas: %s", error)

    def _make(self, canvas: Any) -> None:
        from vispy.scene.visuals import Text  # type: ignore[import-untyped]

        for color in (OUTLINE, COLOR):
            node = Text("", color=color, bold=True, font_size=SIZE, parent=canvas.view)
            node.order = 1_000_000
            node.visible = False
            # The canvas keeps its nodes; a reference from here would keep the canvas.
            self._nodes.append(weakref.ref(node))
        self._canvas = weakref.ref(canvas)
        canvas.events.resize.connect(self._place)

    def show(self, letters: Mapping[str, str]) -> None:
        """Show letters at "top", "bottom", "left" and "right"; none for an empty mapping."""
        if letters != self.shown:
            self.shown = dict(letters)
            self._place()

    def _place(self, event: Any = None) -> None:
        canvas, nodes = self._canvas(), [node() for node in self._nodes]
        if canvas is None or not nodes or None in nodes:
            return
        height, width = canvas.size
        places = {
            "top": (width / 2, INSET),
            "bottom": (width / 2, height - INSET),
            "left": (INSET, height / 2),
            "right": (width - INSET, height / 2),
        }
        texts = list(self.shown.values())
        spots = [places[side] for side in self.shown]
        outline, letters = nodes
        for node in nodes:
            node.visible = bool(texts)
        if texts:
            outline.text = texts * len(OFFSETS)
            outline.pos = [(x + a, y + b) for a, b in OFFSETS for x, y in spots]
            letters.text, letters.pos = texts, spots
