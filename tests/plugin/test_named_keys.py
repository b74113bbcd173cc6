"""Keys that napari lists in its preferences."""

import pytest
from napari.components import ViewerModel
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import coerce_keybinding

from napari_medgs.plugin.widgets.named_keys import bind_named_key, free_named_key

NAME = "napari-medgs:jump_now"


@pytest.fixture(autouse=True)
def own_settings():
    yield
    get_settings().shortcuts.shortcuts.pop(NAME, None)


def bound(key):
    return ViewerModel.class_keymap.get(coerce_keybinding(key))


def test_a_named_key_acts_on_its_own_viewer_and_is_freed():
    first, second, pressed = ViewerModel(), ViewerModel(), []
    assert bind_named_key(first, "jump now", "jump", "J", lambda: pressed.append(1))
    assert bind_named_key(second, "jump now", "jump", "J", lambda: pressed.append(2))
    assert NAME in action_manager._actions  # what the page of shortcuts lists
    bound("J")(second)
    bound("J")(first)
    assert pressed == [2, 1]
    free_named_key(first, "jump now")
    bound("J")(first)
    assert pressed == [2, 1]
    free_named_key(second, "jump now")
    free_named_key(second, "jump now")
    assert bound("J") is None


def test_the_key_that_the_user_chose_is_bound():
    viewer, pressed = ViewerModel(), []
    get_settings().shortcuts.shortcuts[NAME] = [coerce_keybinding("Shift+J")]
    assert bind_named_key(viewer, "jump now", "jump", "J", lambda: pressed.append(1))
    assert bound("J") is None
    bound("Shift+J")(viewer)
    assert pressed == [1]
    # As the page of preferences does while the widget is open.
    action_manager.unbind_shortcut(NAME)
    action_manager.bind_shortcut(NAME, "Alt+J")
    bound("Alt+J")(viewer)
    assert pressed == [1, 1]
    free_named_key(viewer, "jump now")
    assert bound("Alt+J") is None


def test_function_keys_are_bound_without_a_warning(recwarn):
    viewer, pressed = ViewerModel(), []
    assert bind_named_key(viewer, "jump now", "jump", "F11", lambda: pressed.append(1))
    bound("F11")(viewer)
    free_named_key(viewer, "jump now")
    assert pressed == [1]
    assert [str(w.message) for w in recwarn if "shortcut" in str(w.message)] == []


def test_keys_of_napari_are_left_alone():
    viewer = ViewerModel()
    ViewerModel.bind_key("J", lambda viewer: None)
    try:
        assert not bind_named_key(viewer, "jump now", "jump", "J", lambda: None)
    finally:
        ViewerModel.bind_key("J")(None)
