"""Results belong to the image that they were made of, whatever its layer is called."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_medgs.fitting import FitParams
from napari_medgs.plugin.discover.jobs import region_from, take_image
from napari_medgs.plugin.discover.layers import add_labels
from napari_medgs.plugin.fit.widget import FitWidget
from napari_medgs.plugin.layer_frame import grid_kwargs
from napari_medgs.plugin.layer_metadata import field_of

WAIT = 120_000


@pytest.fixture
def image_of(tiny_volume):
    """Make images of one name and place."""

    def make(data):
        return Image(data, name="T1", **grid_kwargs(tiny_volume.grid))

    return make


def test_another_image_of_the_same_name_gets_its_own_field(
    make_viewer, qtbot, image_of, tiny_volume
):
    viewer = make_viewer()
    first = viewer.add_layer(image_of(tiny_volume.channel(0)))
    widget = FitWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Fit")
    widget.settings.load(FitParams(gaussians=60, iterations=2, backend="cpu"))

    def fit():
        widget.last = None
        widget.run()
        qtbot.waitUntil(lambda: not widget.runner.busy and widget.last is not None, timeout=WAIT)
        return widget.last.result.field

    field = fit()
    assert take_image(viewer.layers, [first]).field is field
    viewer.layers.remove(first)
    second = viewer.add_layer(image_of(tiny_volume.channel(0)[:, ::-1]))
    assert take_image(viewer.layers, [second]).field is None
    widget.images.check([second])
    other = fit()
    there = [field_of(x) for x in viewer.layers]
    assert any(x is field for x in there)  # the first patient's result is not replaced
    assert take_image(viewer.layers, [second]).field is other
    second.name = "renamed"
    assert take_image(viewer.layers, [second]).field is other
    newest = fit()
    there = [field_of(x) for x in viewer.layers]
    assert not any(x is other for x in there)
    assert any(x is newest for x in there)


def test_an_edited_division_stays(image_of, tiny_volume, tiny_labels):
    viewer = ViewerModel()
    image = viewer.add_layer(image_of(tiny_volume.channel(0)))
    task = take_image(viewer.layers, [image])
    made = add_labels(viewer, task, None, tiny_labels, "tissues", {})
    assert add_labels(viewer, task, None, tiny_labels // 2, "tissues", {1: "x"}) is made
    assert made.data.max() == 1
    made.data[0, 0, :5] = 7
    made.refresh()
    again = add_labels(viewer, task, None, tiny_labels, "tissues", {})
    assert again is not made
    assert (made.name, made.visible) == ("T1 · tissues (edited)", False)
    assert (made.data[0, 0, :5] == 7).all()
    assert again.name == "T1 · tissues"
    # Another image of that name elsewhere keeps its own.
    viewer.layers.remove(image)
    place = {"scale": (3, 1, 1), "translate": (0, 99, 0)}
    moved = viewer.add_image(tiny_volume.channel(0), name="T1", **place)
    far = add_labels(viewer, take_image([], [moved]), None, tiny_labels * 2, "tissues", {})
    assert far is not again
    np.testing.assert_array_equal(again.data, tiny_labels)


def test_a_region_of_another_grid_is_resampled(image_of, tiny_volume, tiny_labels):
    image = image_of(tiny_volume.channel(0))
    fine = grid_kwargs(tiny_volume.grid.with_spacing((3.0, 0.5, 0.5)))
    mask = Labels(tiny_labels.repeat(2, 1).repeat(2, 2), name="fine", **fine)
    task = take_image([], [image])
    np.testing.assert_array_equal(region_from(mask, task, resample=True), tiny_labels != 0)
