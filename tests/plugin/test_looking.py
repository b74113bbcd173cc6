"""Planes, window and level: what a person sees of the image."""

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt

from napari_medgs.plugin.viewing.window_level import PRESETS, Window, is_hounsfield
from tests.plugin.strokes import Mouse


def body(seed=0, shape=(6, 40, 40)):
    """A slab of water with fat and bone in air, in Hounsfield units."""
    image = np.full(shape, -1000.0, np.float32)
    image[:, 5:35, 5:35] = -100
    image[:, 8:32, 8:32] = 40
    image[:, 18:22, 18:22] = 700
    return image + np.random.default_rng(seed).normal(0, 10, shape).astype(np.float32)


def test_windows_are_levels_and_widths():
    assert Window(40, 400).limits == (-160, 240)
    wide = Window(40, 400).dragged(right=100, up=0)
    assert wide.level == 40
    assert wide.width > 450
    assert Window(40, 400).dragged(right=0, up=30).limits == (-200, 200)


@pytest.mark.parametrize(
    ("values", "is_ct"),
    [
        (body(), True),
        (body()[:, 6:34, 6:34], True),  # cropped: no air
        (body().astype(np.int16), True),
        (body() + 1024, False),  # stored values without their intercept
        (np.random.default_rng(0).normal(0, 1, (5, 9, 9)), False),
        (np.random.default_rng(0).integers(0, 4000, (5, 9, 9)), False),
        (np.full((5, 9, 9), np.nan), False),
        (body() > 0, False),
    ],
)
def test_hounsfield_units_are_recognized(values, is_ct):
    from napari.layers import Image, Labels

    assert is_hounsfield(Image(values, contrast_limits=(0, 1))) is is_ct
    assert not is_hounsfield(Labels(np.ones((4, 5), int)))
    assert not is_hounsfield(Image(np.zeros((4, 5, 3), np.uint8), rgb=True))


def test_presets_change_all_ct_images_and_can_be_taken_back(docked):
    viewer, widget = docked(image=False)
    bar = widget.look.window_bar
    assert not bar.isEnabled()
    mr = viewer.add_image(np.random.default_rng(1).random((6, 40, 40)), name="mr")
    names = [bar.presets.itemText(k) for k in range(bar.presets.count())]
    assert bar.isEnabled()
    assert names == ["As opened", "Own"]
    first = viewer.add_image(body(), name="ct", contrast_limits=(-1000, 700))
    second = viewer.add_image(body(1), name="late phase", contrast_limits=(-900, 600))
    names = [bar.presets.itemText(k) for k in range(bar.presets.count())]
    assert names == ["As opened", *PRESETS, "Own"]
    before = tuple(mr.contrast_limits)
    bar.presets.setCurrentText("Lung")
    bar.presets.activated.emit(names.index("Lung"))
    assert tuple(first.contrast_limits) == tuple(second.contrast_limits) == (-1350, 150)
    assert tuple(mr.contrast_limits) == before
    assert bar.values.text() == "L -600  W 1500"
    assert bar.presets.currentText() == "Lung"
    first.contrast_limits = (-1000, 150)
    assert bar.presets.currentText() == "Own"
    bar.choose("As opened")
    assert tuple(first.contrast_limits) == (-1000, 700)
    assert tuple(second.contrast_limits) == (-900, 600)
    assert bar.presets.currentText() == "As opened"


@pytest.mark.parametrize("held", [True, False])
def test_a_drag_changes_the_window_and_paints_nothing(docked, qtbot, held):
    viewer, widget = docked(image=False)
    ct = viewer.add_image(body(), name="ct", contrast_limits=(-160, 240))
    viewer.window._qt_window.show()
    widget.view.auto.setChecked(False)
    widget.view.new_strokes.click()
    strokes = widget.strokes_layer
    strokes.mode = "erase"
    strokes.data[:] = 1
    center = tuple(viewer.scene.camera.center)
    bar = widget.look.window_bar
    if held:
        mouse = Mouse(viewer, Qt.MouseButton.RightButton, Qt.KeyboardModifier.ShiftModifier)
    else:
        mouse = Mouse(viewer)
        bar.drag.click()
    with mouse.drag(ct, [(3, 20, 10), (3, 20, 20), (3, 20, 30)]):
        pass
    low, high = ct.contrast_limits
    assert high - low > 420
    assert (low + high) / 2 == pytest.approx(40, abs=2)
    if not held:
        bar.drag.click()
    assert strokes.mode == "erase"
    assert strokes.data.all()
    assert tuple(viewer.scene.camera.center) == center
    bar.shut_down()
    with Mouse(viewer, Qt.MouseButton.RightButton, Qt.KeyboardModifier.ShiftModifier).drag(
        ct, [(3, 20, 10), (3, 20, 30)]
    ):
        pass
    assert tuple(ct.contrast_limits) == (low, high)


def test_planes_by_button_and_key(docked):
    viewer, widget = docked()
    planes = widget.look.planes
    viewer.dims.set_point(0, viewer.dims.range[0].start + 3)
    place = viewer.dims.point
    for plane, letters in {1: ("S", "L"), 0: ("S", "P"), 2: ("A", "L")}.items():
        planes.buttons[plane].click()
        shown = planes._follower.letters.shown
        assert (shown["top"], shown["right"]) == letters
        assert [k for k, b in planes.buttons.items() if b.isChecked()] == [plane]
    assert viewer.dims.point == place
    viewer.dims.ndisplay = 3
    assert not any(b.isChecked() for b in planes.buttons.values())
    (code,) = [code for code in ViewerModel.class_keymap if str(code) == "F7"]
    ViewerModel.class_keymap[code](viewer)
    assert viewer.dims.ndisplay == 2
    assert planes.buttons[1].isChecked()
    # napari's own button rolls on from there, and the buttons follow.
    viewer.dims.roll()
    assert not planes.buttons[1].isChecked()
    widget.shut_down()
    viewer.dims.order = (0, 1, 2)
    if code in ViewerModel.class_keymap:  # for another viewer that is still open
        ViewerModel.class_keymap[code](viewer)
    assert tuple(viewer.dims.order) == (0, 1, 2)


def test_planes_of_unknown_orientation_are_named_by_axes(docked):
    viewer, widget = docked(image=False)
    viewer.add_image(np.zeros((5, 6, 7)))
    buttons = widget.look.planes.buttons
    assert [b.text() for b in buttons.values()] == ["Across z", "Across y", "Across x"]
    buttons[0].click()
    assert viewer.dims.order == (2, 0, 1)
    viewer.layers.clear()
    viewer.add_image(np.zeros((6, 7)))
    assert not widget.look.planes.isEnabled()
