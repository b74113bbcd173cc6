"""Sparing the window full garbage collections of what does not change. No Qt."""

from __future__ import annotations

import gc
from typing import Any
from weakref import WeakSet

_set_apart, _give_back = gc.freeze, gc.unfreeze


class CollectorRest:
    """Leaves what exists out of garbage collection while a viewer is worked with.

    A full collection looks at every object of the process, half a million with the libraries that
    are loaded, and the window stands still for 0.3 to 0.5 s, whichever thread it begins in. What
    is set apart is not freed where only cycles of references hold it, as those of napari's layers
    do: so it is given back when such a layer is removed and when a session ends.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._present: WeakSet[Any] = WeakSet()
        self._closed = False
        viewer.layers.events.removed.connect(self._on_removed)

    def begin(self) -> None:
        """Set apart what exists now."""
        if self._closed:
            return
        self._present.update(self._viewer.layers)
        _set_apart()

    def end(self) -> None:
        """Give it back; collections free it when Python next makes one."""
        self._present.clear()
        _give_back()

    def _on_removed(self, event: Any) -> None:
        if event.value in self._present:
            self.end()

    def shut_down(self) -> None:
        """Give everything back, and stop listening."""
        self._closed = True
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self.end()
