"""Keyboard shortcuts that a widget binds and releases again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from napari_medgs.plugin.widgets.named_keys import bind_named_key, free_named_key


class Shortcuts:
    """Keys bound to a viewer or layers; :meth:`free` restores what was bound before."""

    def __init__(self) -> None:
        self._bound: list[tuple[Any, Any, Any]] = []
        self._named: list[tuple[Any, str]] = []

    def bind_named(
        self, viewer: Any, key: str, name: str, text: str, action: Callable[[], Any]
    ) -> None:
        """Bind a key of a viewer that napari lists in its preferences, where it can be changed.

        Parameters
        ----------
        viewer : napari.components.ViewerModel
        key : str
            The default.
        name : str
            Under which napari keeps the user's own key.
        text : str
            Shown in the list.
        action : callable
        """
        if bind_named_key(viewer, name, text, key, action):
            self._named.append((viewer, name))
        else:  # napari has an action of this key: it is ours as long as the widget is open
            self.bind(viewer, key, action)

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

    def bind_held(self, target: Any, key: str, held: Callable[[], Iterator[None]]) -> None:
        """Bind a key to a generator, which goes on after its ``yield`` at the key's release."""
        from napari.utils.key_bindings import coerce_keybinding

        def run(_: Any) -> Iterator[None]:
            yield from held()

        code = coerce_keybinding(key)
        if any(t is target and c == code for t, c, _ in self._bound):
            return
        before = target.keymap.get(code)
        target.bind_key(key, run, overwrite=True)
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
        for owner, name in list(self._named):
            if target is None or owner is target:
                free_named_key(owner, name)
                self._named.remove((owner, name))
