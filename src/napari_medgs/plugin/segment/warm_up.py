"""What the first Labels layer of a process needs, made before it is asked for. No Qt."""

from __future__ import annotations

import gc
import threading

import numpy as np

_DONE = threading.Event()


def warm_up() -> None:
    """Let napari compile its mapping of labels to colors, which takes seconds, and only once.

    For a thread: nothing is shown, and no layer of a viewer is touched. The garbage collector
    rests meanwhile: the compiler would set it off in this thread, and Qt objects that it finds
    must not be deleted outside of the main thread.
    """
    if _DONE.is_set():
        return
    collects = gc.isenabled()
    gc.disable()
    try:
        _compile()
    finally:
        if collects:
            gc.enable()
    _DONE.set()


def make_units() -> None:
    """Let napari read its table of units, in the main thread and before :func:`warm_up`.

    It is read when first used, and whoever asks for a unit meanwhile from another thread, as an
    image that is opened does, is told that there is none.
    """
    from napari.utils.transforms import Affine

    Affine(ndim=3)


def _compile() -> None:
    from napari.layers import Labels

    from napari_medgs.plugin.segment.layers import BACKGROUND, label_colormap

    for result in (False, True):
        colormap = label_colormap({}, None if result else BACKGROUND, result=result)
        layer = Labels(np.zeros((2, 2, 2), np.uint8), colormap=colormap)
        layer.data[0, 0, 0] = 1
        layer.refresh(extent=False)
