"""Keyboard shortcuts that a widget binds and releases again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Shortcuts:
    """Keys bound to a viewer or layers; :meth:`free` restores what was bound before."""

    def __init__(self) -> None:
        self._bound: list[tuple[Any, Any, Any]] = []

    def bind(self, target: Any, key: str, action: Callable[[], Any]) -> None:
        """Bind a key of a viewer or of one layer to an action.

        A layer's own keys win over those of its class, the viewer's come after all layers'.
        """
        from napari.utils.key_bindings import coerce_keybinding

        code = coerce_keybinding(key)
        if any(t is target and c == code for t, c, _ in self._bound):
            return
        before = target.keymap.get(code)
        target.bind_key(key, lambda _: action(), overwrite=True)
        self._bound.append((target, code, before))

    def free(self, target: Any | None = None) -> None:
        """Give the keys of one target back, or all."""
        kept = []
        for owner, code, before in self._bound:
            if target is not None and owner is not target:
                kept.append((owner, code, before))
                continue
            owner.keymap.pop(code, None)
            if before is not None:
                owner.keymap[code] = before
        self._bound = kept
