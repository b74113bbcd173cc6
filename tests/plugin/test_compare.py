"""The result of a fit next to its image, and the qualities of the slider."""

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_medgs.errors import GeometryError, ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.metrics import image_difference
from napari_medgs.plugin import preferences as preferences_module
from napari_medgs.plugin.fit.compare import Comparison, grid_of
from napari_medgs.plugin.fit.quality import OWN, QUALITIES, quality_settings
from napari_medgs.plugin.fit.swipe import Swipe
from napari_medgs.plugin.fit.widget import FitWidget
from napari_medgs.plugin.preferences import Preferences, cache_folder, preferences
from napari_medgs.plugin.widgets.layers import is_source_image

WAIT = 120_000


@pytest.fixture
def docked(make_viewer):
    viewer = make_viewer()
    widget = FitWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Fit")
    return viewer, widget


def cells(viewer):
    """Return the names of the visible layers of every cell of the grid."""
    grid = grid_of(viewer)
    found = {}
    for index, layer in enumerate(viewer.layers):
        if layer.visible:
            found.setdefault(grid.position(index, viewer.layers), set()).add(layer.name)
    return [found[place] for place in sorted(found)]


def test_one_layer_has_a_cell_of_its_own_whatever_is_added():
    viewer = ViewerModel()
    for name in ("a", "b", "c"):
        viewer.add_image(np.zeros((4, 5)), name=name)
    comparison = Comparison(viewer)
    viewer.layers["b"].visible = False
    before = grid_of(viewer).stride
    comparison.show_beside(viewer.layers["b"])
    assert cells(viewer) == [{"a", "c"}, {"b"}]
    viewer.add_image(np.zeros((4, 5)), name="d")
    assert cells(viewer) == [{"a", "c", "d"}, {"b"}]
    viewer.layers.move(0, 4)
    assert cells(viewer) == [{"a", "c", "d"}, {"b"}]
    viewer.layers.remove("a")
    assert cells(viewer) == [{"c", "d"}, {"b"}]
    comparison.show_beside(viewer.layers["d"])
    assert cells(viewer) == [{"c"}, {"d"}]
    comparison.end()
    assert not grid_of(viewer).enabled
    assert grid_of(viewer).stride == before
    comparison.show_beside(viewer.layers["c"])
    viewer.layers.remove("c")
    assert not grid_of(viewer).enabled
    assert comparison.beside is None
    for k in range(52):
        viewer.add_image(np.zeros((2, 2)), name=f"more {k}")
    with pytest.raises(ParameterError, match="up to 51 layers"):
        comparison.show_beside(viewer.layers[0])


def test_a_result_is_compared_with_its_image(docked, qtbot, add_tiny, notes):
    viewer, widget = docked
    image, mask = add_tiny(viewer)
    viewer.layers.remove(mask)
    bar = widget.compare
    assert not bar.isVisibleTo(widget)
    widget.settings.set_value("iterations", 5)
    widget.run()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert bar.isVisibleTo(widget)
    picture, overlay = widget.made
    assert not picture.visible
    assert image.visible

    def choose(what):
        bar.choice.setCurrentIndex(bar.choice.findData(what))

    choose("beside")
    assert cells(viewer) == [{image.name, overlay.name}, {picture.name}]
    choose("instead")
    assert (image.visible, picture.visible) == (False, True)
    assert not grid_of(viewer).enabled
    choose("beside")
    choose("swipe")
    assert (image.visible, picture.visible, bar.swipe.is_on) == (True, True, True)
    assert viewer.layers.index(picture) > viewer.layers.index(image)
    bar.line.setValue(20)
    choose("difference")
    assert not bar.swipe.is_on
    qtbot.waitUntil(lambda: bar.difference is not None, timeout=WAIT)
    found = bar.difference
    np.testing.assert_allclose(found.data, picture.data - image.data, atol=1e-4)
    assert cells(viewer) == [{image.name, overlay.name}, {found.name}]
    low, high = found.contrast_limits
    assert low == -high < 0
    assert f"mean {np.mean(found.data):+.3g}" in bar.numbers.text()
    assert not is_source_image(found)
    assert widget.images.layers == [image]
    choose("image")
    assert (image.visible, picture.visible, found.visible) == (True, False, False)
    # A new fit replaces it all.
    widget.run()
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)
    assert found not in viewer.layers
    assert len(viewer.layers) == 3
    choose("beside")
    widget.shut_down()
    assert not grid_of(viewer).enabled
    assert notes == []


def test_the_slider_stands_for_settings(docked):
    _, widget = docked
    form = widget.settings
    slider = form.speed.slider
    for index, quality in enumerate(QUALITIES):
        slider.setValue(index)
        assert form.params() == FitParams(**quality.settings)
        assert form.speed.expect.text() == quality.expect
    form.set_value("iterations", 7)
    assert form.speed.expect.text() == OWN
    form.reset.click()
    assert slider.value() == 1
    assert form.params() == FitParams()
    assert quality_settings("unheard of") == quality_settings("balanced")


def test_preferences_are_the_defaults(make_viewer, monkeypatch, tmp_path):
    settings = pytest.importorskip("napari.settings")
    if not hasattr(settings, "get_plugin_settings"):
        pytest.skip("napari 0.9 keeps settings of plugins")
    assert preferences() == Preferences()
    # Of their own, so that those of the user stay as they are.
    stored = type(settings.get_plugin_settings("napari-medgs"))(config_path=None).medgs
    monkeypatch.setattr(preferences_module, "stored_settings", lambda: stored)
    assert preferences() == Preferences()
    with pytest.raises(ValueError, match="enum"):
        stored.quality = "superb"
    stored.quality, stored.backend, stored.threads = "exact", "cpu", 1
    stored.cache_folder = str(tmp_path / "mine")
    widget = FitWidget(make_viewer())
    assert widget.settings.params() == FitParams(quality=50, backend="cpu", threads=1)
    assert cache_folder() == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()
    (tmp_path / "file").write_text("")
    stored.cache_folder = str(tmp_path / "file" / "below")
    assert cache_folder().name == "napari-medgs"
    widget.shut_down()
    monkeypatch.setattr(preferences_module, "stored_settings", lambda: None)
    assert preferences() == Preferences()


def test_differences_have_numbers():
    truth = np.array([[[1, 2], [3, 4]]], np.int16)
    found = image_difference(truth, truth + np.array([[[0, 1], [-3, 2]]], np.int16))
    np.testing.assert_array_equal(found.values, [[[0, 1], [-3, 2]]])
    assert found.mean == 0
    assert found.mean_absolute == 1.5
    assert found.root_mean_square == pytest.approx(np.sqrt(14 / 4))
    assert found.largest == 3
    with pytest.raises(GeometryError):
        image_difference(truth, truth[:, :1])


def test_a_swipe_shows_one_image_left_of_a_line_and_another_right_of_it(make_viewer):
    viewer = make_viewer(show=True)
    viewer.add_image(np.full((4, 20, 20), 1.0), name="dark", contrast_limits=(0, 10))
    bright = viewer.add_image(np.full((4, 20, 20), 9.0), name="bright", contrast_limits=(0, 10))
    swipe = Swipe(viewer)

    def shares():
        shot = viewer.screenshot(canvas_only=True, flash=False)[..., 0].astype(int)
        row = shot[shot.shape[0] // 2]
        return (row > 200).sum(), ((row > 10) & (row < 60)).sum()

    full, none = shares()
    assert none == 0
    swipe.begin(bright, 0.5)
    half = shares()
    assert abs(half[0] - full / 2) <= 2
    assert abs(half[1] - full / 2) <= 2
    swipe.move(0)
    assert shares()[0] == 0
    viewer.dims.ndisplay = 3  # ends it
    assert not swipe.is_on
    with pytest.raises(ParameterError, match="3D"):
        swipe.begin(bright)
    viewer.dims.ndisplay = 2
    assert shares() == (full, 0)
