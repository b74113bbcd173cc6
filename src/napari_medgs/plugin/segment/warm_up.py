"""What the first Labels layer of a process needs, made before it is asked for. No Qt."""

from __future__ import annotations

import gc
import threading

import numpy as np

from napari_medgs.plugin.first_use import prepare_images
from napari_medgs.plugin.report import LOGGER
from napari_medgs.plugin.responsive import run_responsive

_DONE = threading.Event()
_ONE_AT_A_TIME = threading.Lock()


def warm_up() -> None:
    """Compile napari's mapping of labels to colors, and changes of masks: seconds, and only once.

    For a thread: nothing is shown, and no layer of a viewer is touched. The garbage collector
    rests meanwhile: the compiler would set it off in this thread, and Qt objects that it finds
    must not be deleted outside of the main thread.
    """
    with _ONE_AT_A_TIME:
        if _DONE.is_set():
            return
        collects = gc.isenabled()
        gc.disable()
        try:
            prepare_images()
            _compile()
        finally:
            if collects:
                gc.enable()
            _DONE.set()  # what failed once is left to napari


def wait_until_warm() -> None:
    """Let :func:`warm_up` end before the first Labels layer is added, in a window that draws."""
    if not _DONE.is_set():
        try:
            run_responsive(warm_up, "Preparing")
        except Exception as error:
            LOGGER.info("warming up failed", exc_info=error)


def _compile() -> None:
    from napari.layers import Labels

    from napari_medgs.plugin.segment.layers import BACKGROUND, label_colormap
    from napari_medgs.segmentation.session import changes

    changes.warm_up()

    for result in (False, True):
        colormap = label_colormap({}, None if result else BACKGROUND, result=result)
        layer = Labels(np.zeros((2, 2, 2), np.uint8), colormap=colormap)
        layer.data[0, 0, 0] = 1
        layer.refresh(extent=False)
