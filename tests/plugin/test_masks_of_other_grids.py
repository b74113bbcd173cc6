"""Masks of another grid in the Fit and Segment widgets, and results of unknown orientation."""

import warnings

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError
from napari_medgs.fitting import FitParams
from napari_medgs.plugin.fit.jobs import make_fit_request
from napari_medgs.plugin.fit.widget import FitWidget
from napari_medgs.plugin.layer_frame import grid_kwargs
from tests.plugin.strokes import begin, idle

WAIT = 120_000


def fine_mask(volume, labels):
    """The mask at half the voxel size in the plane, as a layer."""
    grid = volume.grid.with_spacing((3.0, 0.5, 0.5))
    return Labels(labels.repeat(2, 1).repeat(2, 2), name="fine", **grid_kwargs(grid))


def test_a_mask_of_another_grid_is_refused_or_resampled(tiny_volume, tiny_labels):
    image = Image(tiny_volume.channel(0), name="scan", **grid_kwargs(tiny_volume.grid))
    mask = fine_mask(tiny_volume, tiny_labels)
    with pytest.raises(GeometryError, match="Check 'Resample'"):
        make_fit_request([image], mask, FitParams())
    request = make_fit_request([image], mask, FitParams(), resample=True)
    np.testing.assert_array_equal(request.mask, tiny_labels)


def test_layers_without_a_file_share_the_viewer_and_no_patient(tiny_volume, tiny_labels):
    image = Image(tiny_volume.channel(0), name="scan", scale=(3, 1, 1))
    place = {"scale": (3, 0.5, 0.5), "translate": (0, -0.25, -0.25)}
    mask = Labels(tiny_labels.repeat(2, 1).repeat(2, 2), name="fine", **place)
    request = make_fit_request([image], mask, FitParams(), resample=True)
    np.testing.assert_array_equal(request.mask, tiny_labels)
    known = Image(tiny_volume.channel(0), name="known", **grid_kwargs(tiny_volume.grid))
    with pytest.raises(GeometryError, match="does not state how it lies"):
        make_fit_request([known], mask, FitParams(), resample=True)
    far = Labels(tiny_labels, name="far", scale=(3, 1, 1), translate=(0, 0, 900))
    with pytest.raises(GeometryError, match="'far' lies outside the image"):
        make_fit_request([image], far, FitParams(), resample=True)


def test_fit_resamples_and_repeats_that_the_orientation_is_unknown(
    make_viewer, qtbot, notes, tiny_volume, tiny_labels
):
    viewer = make_viewer()
    viewer.add_image(tiny_volume.channel(0), name="scan", scale=(3, 1, 1))
    place = {"scale": (3, 0.5, 0.5), "translate": (0, -0.25, -0.25)}
    viewer.add_labels(tiny_labels.repeat(2, 1).repeat(2, 2), name="fine", **place)
    widget = FitWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Fit")
    widget.mask.choose(viewer.layers["fine"])
    widget.settings.load(FitParams(gaussians=200, iterations=3, backend="cpu"))
    widget.run()
    assert "Check 'Resample'" in notes[-1][1]
    widget.resample.setChecked(True)
    widget.run()
    qtbot.waitUntil(lambda: not widget.runner.busy and widget.last is not None, timeout=WAIT)
    assert "orientation of &#x27;scan&#x27; is not known" in widget.result.text()
    assert widget.last.result.metrics["dice"].keys() == {"1", "2"}


def test_segment_resamples_a_starting_mask(docked, qtbot, notes, tiny_volume, tiny_labels):
    viewer, widget = docked()
    mask = viewer.add_layer(fine_mask(tiny_volume, tiny_labels))
    widget.view.initial.choose(mask)
    widget.view.new_strokes.click()
    assert widget.controller.session is None
    assert "Check 'Resample'" in notes[-1][1]
    widget.view.resample.setChecked(True)
    widget.view.new_strokes.click()
    np.testing.assert_array_equal(widget.controller.session.initial, tiny_labels)
    idle(qtbot, widget)
    assert "orientation" not in widget.view.result.text()


def test_segment_repeats_that_the_orientation_is_unknown(docked, qtbot, notes, tiny_volume):
    viewer, widget = docked(image=False)
    viewer.add_image(tiny_volume.channel(0), name="plain", scale=(3, 1, 1))
    begin(qtbot, widget)
    assert "orientation of &#x27;plain&#x27; is not known" in widget.view.result.text()


def test_nothing_is_said_of_grids_that_match(tiny_volume, tiny_labels):
    image = Image(tiny_volume.channel(0), name="scan", **grid_kwargs(tiny_volume.grid))
    same = Labels(tiny_labels, name="same", **grid_kwargs(Grid(*_parts(tiny_volume.grid))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request = make_fit_request([image], same, FitParams(), resample=True)
    np.testing.assert_array_equal(request.mask, tiny_labels)


def _parts(grid):
    return grid.shape, grid.affine
