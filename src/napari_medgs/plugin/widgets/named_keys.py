"""Keys with names: napari lists them in Preferences › Shortcuts, where they can be changed."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PREFIX = "napari-medgs:"
Action = Callable[[], Any]
_ACTIONS: dict[str, weakref.WeakKeyDictionary[Any, Action]] = {}


@contextmanager
def _function_keys() -> Iterator[None]:
    """Let napari say nothing about F1 to F12: it binds them, and warns that they are no keys."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*valid shortcut Key", category=UserWarning)
        yield


def bind_named_key(viewer: Any, name: str, text: str, key: str, action: Action) -> bool:
    """Bind an action of a viewer to the key that the user chose for it, or to a default.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    name : str
        Of the action, in words that stay.
    text : str
        Shown in the list of shortcuts.
    key : str
        The default.
    action : callable

    Returns
    -------
    bool
        False where another action of napari has the default key: nothing is bound then.
    """
    from napari.components import ViewerModel
    from napari.settings import get_settings
    from napari.utils.action_manager import action_manager
    from napari.utils.key_bindings import coerce_keybinding

    full = PREFIX + name.replace(" ", "_")
    viewers = _ACTIONS.setdefault(full, weakref.WeakKeyDictionary())
    if not viewers:
        chosen = get_settings().shortcuts.shortcuts.get(full)
        keys = [coerce_keybinding(key)] if chosen is None else list(chosen)
        if any(code in ViewerModel.class_keymap for code in keys):
            return False

        def run(viewer: Any) -> None:
            act = _ACTIONS[full].get(viewer)
            if act is not None:
                act()

        action_manager.register_action(full, run, text, ViewerModel)
        with _function_keys():
            for code in keys:
                action_manager.bind_shortcut(full, code)
    viewers[viewer] = action
    return True


def free_named_key(viewer: Any, name: str) -> None:
    """Free the key of an action; it stays in the list of shortcuts."""
    from napari.utils.action_manager import action_manager

    full = PREFIX + name.replace(" ", "_")
    viewers = _ACTIONS.get(full)
    if viewers is None or viewers.pop(viewer, None) is None or viewers:
        return
    with _function_keys():
        action_manager.unbind_shortcut(full)
