"""Three linked planes and the surface, two by two."""

from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QSplitter

from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.viewing.four_views import fitted_size
from tests.plugin.strokes import WAIT, Mouse, begin, idle, stroke


def test_four_views_share_place_layers_and_strokes(docked, qtbot, notes, monkeypatch):
    viewer, widget = docked()
    window = viewer.window._qt_viewer
    look, four = widget.look, widget.look.four_views
    viewer.window._qt_window.show()
    layer = begin(qtbot, widget)
    before = []
    add = QSplitter.addWidget

    def added(splitter, view):
        if view in [plane.widget for plane in four.planes]:
            planes = (plane.shown_plane() for plane in four.planes)
            before.append({follow_planes(viewer).shown_plane(), *planes})
        add(splitter, view)

    monkeypatch.setattr(QSplitter, "addWidget", added)
    look.four.click()
    qtbot.waitUntil(lambda: len(four.planes) == 2 and four.space is not None, timeout=WAIT)
    qtbot.waitUntil(lambda: four.space.layer is not None, timeout=WAIT)
    assert not four.space.words.isVisible()
    # A surface that outgrows the canvas is seen whole again, from where the user looks.
    camera = getattr(four.space.model, "scene", four.space.model).camera
    vertices, faces = (np.array(part) for part in four.space.layer.data[:2])
    camera.angles, zoom = (0.0, 10.0, 60.0), camera.zoom
    colors = np.ones((len(vertices), 4), np.float32)
    for size, share in ((1.2, 1), (4, 4)):
        four.space.show(SimpleNamespace(vertices=size * vertices, faces=faces, colors=colors),
                        viewer.layers["scan"], (0.0, 0.0, 90.0))  # fmt: skip
        assert camera.zoom == pytest.approx(zoom / share, rel=0.2)
        np.testing.assert_allclose(camera.angles, (0, 10, 60), atol=1e-3)
    # The three planes, each upright with its letters: from the moment when they are shown.
    assert before
    assert all(planes == {0, 1, 2} for planes in before)
    shown = [follow_planes(viewer), *(view.follower for view in four.planes)]
    assert {follower.shown_plane() for follower in shown} == {0, 1, 2}
    assert [follower.letters.shown["top"] for follower in shown] == ["A", "S", "S"]
    look.planes.buttons[0].click()
    assert {follower.shown_plane() for follower in shown} == {0, 1, 2}
    # One place for all, chosen in any of them.
    view = four.planes[0]
    point = tuple(r.start + 2 * r.step for r in view.model.dims.range)
    view.model.dims.point = point
    assert tuple(viewer.dims.point) == tuple(four.planes[1].model.dims.point) == point
    # The copies share the arrays: a stroke in one is a stroke of the session.
    copy = view.mirrors[layer].copy
    assert copy.data is layer.data
    assert view.model.layers.selection.active is copy
    widget.view.table.choose(2)
    assert copy.selected_label == 2
    layer.brush_size = 1
    assert copy.brush_size == 1
    done = len(widget.controller.session.history.done)
    stroke(copy, [(4, 9, 17), (4, 9, 18)], 2)
    assert len(widget.controller.session.history.done) == done + 1
    assert widget.controller.session.strokes[4, 9, 17] == 2
    idle(qtbot, widget)
    widget.undo()
    assert copy.data[4, 9, 17] == 0
    # What is done to a layer, and which layers there are, shows in all.
    viewer.layers["scan"].contrast_limits = (1, 2)
    assert tuple(view.mirrors[viewer.layers["scan"]].copy.contrast_limits) == (1, 2)
    extra = viewer.add_image(np.zeros(layer.data.shape), name="late")
    assert extra in view.mirrors
    viewer.layers.remove(extra)
    assert extra not in view.mirrors
    assert [x.name for x in view.model.layers] == [
        x.name for x in viewer.layers if type(x).__name__ != "Surface"
    ]
    look.four.click()
    qtbot.wait(50)
    assert window.count() == 1
    assert not four.is_on
    assert notes == []


def test_the_crosshair_follows_the_mouse_with_shift(docked, qtbot):
    viewer, widget = docked()
    viewer.window._qt_window.show()
    four = widget.look.four_views
    image = viewer.layers["scan"]
    widget.look.four.click()
    qtbot.waitUntil(lambda: four.space is not None, timeout=WAIT)
    qtbot.waitUntil(
        four.space.words.isVisible, timeout=WAIT
    )  # nothing else says what the black canvas is for
    qtbot.wait(50)
    mouse = Mouse(viewer, Qt.MouseButton.NoButton, Qt.KeyboardModifier.ShiftModifier)
    none = Qt.MouseButton.NoButton
    for spot in ((5, 3, 4), (5, 6, 8)):
        qtbot.wait(30)
        mouse._send(QEvent.Type.MouseMove, image, spot, none, none)
    place = np.asarray(image.data_to_world((5, 6, 8)))
    np.testing.assert_allclose(viewer.dims.point[1:], place[1:], atol=max(image.scale))
    for view in four.planes:
        assert tuple(view.model.dims.point) == tuple(viewer.dims.point)
    widget.shut_down()
    qtbot.wait(50)
    assert not four.is_on


def test_flat_images_have_no_four_views(docked, notes):
    viewer, widget = docked(image=False)
    viewer.add_image(np.zeros((6, 7)))
    widget.look.four.click()
    assert "need a volume" in notes.pop()[1]
    assert not widget.look.four.isChecked()


def test_planes_fit_canvases_that_are_laid_out_late(docked, qtbot):
    viewer, widget = docked()
    viewer.window._qt_window.show()
    four = widget.look.four_views
    opened = []
    four.opened.connect(lambda: opened.append(True))
    whole = fitted_size(viewer)
    widget.look.four.click()
    qtbot.waitUntil(lambda: bool(opened), timeout=WAIT)
    qtbot.waitUntil(lambda: fitted_size(viewer) < whole, timeout=WAIT)  # laid out by now
    four._fit(1)
    camera = getattr(viewer, "scene", viewer).camera
    fitted = camera.zoom
    camera.zoom = 5 * fitted
    sizes = {id(viewer): fitted_size(viewer)}
    four._fit(1, sizes)
    assert camera.zoom == 5 * fitted  # the user's
    four._fit(1, {id(viewer): (7, 7)})
    assert camera.zoom == fitted
    widget.look.four.click()
    four._fit(1)  # closed meanwhile
    # One plane fills the canvas again.
    qtbot.waitUntil(lambda: camera.zoom > 1.2 * fitted, timeout=WAIT)
    widget.shut_down()
