"""OpenGL work outside of drawing, done in the canvas's own context."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any


def keep_context(viewer: Any, canvas: Any = None) -> None:
    """Let a canvas delete what belonged to removed layers in its own OpenGL context.

    After layers were removed, napari deletes their textures and buffers at once, outside of
    drawing, in whichever context happens to be current: that of the window, where a listener to
    the removal let the window draw. The canvas then goes on with buffers that are no more, and
    its next drawing ends the program (segmentation fault).

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Nothing is done for one without a window.
    canvas : object, optional
        napari's canvas that shows its layers; that of the viewer's window by default.
    """
    try:
        canvas = viewer.window._qt_viewer.canvas if canvas is None else canvas
        native, context = weakref.ref(canvas.native), canvas._scene_canvas.context
        finish = context.finish
    except (AttributeError, TypeError, RuntimeError):
        return

    def finish_in_own_context() -> None:
        widget = native()
        if widget is not None:
            with suppress(RuntimeError):  # Qt has deleted it
                widget.makeCurrent()
        finish()

    context.finish = finish_in_own_context
