"""The overlay in a viewer model: what is drawn for which slice."""

import gc
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_frame import frame_of, grid_kwargs
from napari_medgs.plugin.overlay.colors import class_colors, gaussian_colors, is_background
from napari_medgs.plugin.overlay.layer import (
    RINGS,
    GaussianOverlay,
    OverlayStyle,
    find_overlay,
    overlay_of,
)
from napari_medgs.rendering import sections, tissue_threshold
from tests.plugin.test_sections import random_field

ALL = OverlayStyle(hide_background=False)
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")


def scene(style=ALL, options=None, **of_field):
    viewer = ViewerModel()
    field = random_field(n=40, **of_field)
    grid = field.info.grid
    kwargs = grid_kwargs(grid) if options is None else options
    image = viewer.add_image(np.random.default_rng(0).random(grid.shape), **kwargs)
    frame = frame_of(image)
    overlay = GaussianOverlay(viewer, field, frame, image, style)
    return viewer, field, image, overlay


def expected_vertices(field, axis, position, sigmas=1.0):
    found = sections.cut(field, axis, position, sigmas)
    flat, _ = sections.disc_mesh(found, 28, tuple(r for r, _ in RINGS[1:]))
    points = np.insert(flat.astype(float), axis, position, axis=1)
    return found, np.clip(points, 0, np.array(field.info.grid.shape) - 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slice_axis", [0, 2])
def test_every_slice_shows_its_own_sections(axis, slice_axis):
    viewer, field, _image, overlay = scene(slice_axis=slice_axis)
    viewer.dims.order = (axis, *[a for a in range(3) if a != axis])
    for step in (5, 9):
        viewer.dims.set_current_step(axis, step)
        found, points = expected_vertices(field, axis, step)
        assert overlay.shown == len(found) > 0
        np.testing.assert_allclose(overlay.layer.data[0], points, atol=1e-4)
        np.testing.assert_allclose(
            overlay.layer.data[0][:, axis], step
        )  # exactly in the slice, or napari would drop it
    assert str(len(found)) in overlay.summary


def test_the_overlay_lies_on_a_flipped_foreign_image():
    viewer, field, image, overlay = scene(options={"scale": (2, -1, 3)})
    viewer.dims.set_current_step(0, 7)
    _, points = expected_vertices(field, 0, 7)
    flipped = points.copy()
    flipped[:, 1] = field.info.grid.shape[1] - 1 - points[:, 1]
    np.testing.assert_allclose(overlay.layer.data[0], flipped, atol=1e-4)
    np.testing.assert_array_equal(overlay.layer.scale, image.scale)
    assert overlay.layer.units == image.units


def test_it_never_changes_the_extent_of_the_scene():
    viewer, _field, image, _overlay = scene(OverlayStyle(sigmas=3, hide_background=False))
    before = viewer.dims.range
    for step in range(image.data.shape[0]):
        viewer.dims.set_current_step(0, step)
        assert viewer.dims.range == before
    viewer.dims.ndisplay = 3
    assert viewer.dims.range == before


def test_space_shows_the_largest_as_bent_ellipsoids_and_says_so():
    viewer, field, _image, overlay = scene(OverlayStyle(most_ellipsoids=10, hide_background=False))
    viewer.dims.ndisplay = 3
    chosen = sections.largest(field, 10)
    points, faces = sections.surfaces(field, chosen, 1.0)
    shape = np.array(field.info.grid.shape) - 1
    np.testing.assert_allclose(overlay.layer.data[0], np.clip(points, 0, shape), atol=1e-4)
    np.testing.assert_array_equal(overlay.layer.data[1], faces)
    assert "largest 10 of 40" in overlay.summary
    assert overlay.layer.shading == "smooth"
    viewer.dims.ndisplay = 2
    assert overlay.layer.shading == "none"


def test_sections_are_capped_at_the_largest():
    viewer, field, _image, overlay = scene(OverlayStyle(most_sections=3, hide_background=False))
    viewer.dims.set_current_step(0, 9)
    found = sections.cut(field, 0, 9, 1.0)
    assert len(found) > 3
    assert overlay.shown == 3
    assert f"largest 3 of {len(found)}" in overlay.summary


def test_colors_follow_classes_and_background_is_left_out():
    viewer, field, image, overlay = scene(OverlayStyle(color_by="class"), classes=3)
    labels = sections.label_values(field)
    step = 9
    viewer.dims.set_current_step(0, step)
    found = sections.cut(field, 0, step, 1.0)
    kept = found.index[labels[found.index] != 0]
    assert overlay.shown == len(kept) < len(found)
    per = 1 + 28 * (len(RINGS) - 1)
    np.testing.assert_allclose(
        overlay.layer.vertex_colors[::per, :3], class_colors(labels[kept]), atol=1e-6
    )
    # As napari's own mask layer shows them.
    mask = viewer.add_labels(np.zeros(image.data.shape, int))
    np.testing.assert_allclose(
        class_colors(np.array([2]))[0], np.ravel(mask.get_color(2))[:3], atol=1e-6
    )


def test_intensity_and_error_colors():
    field = random_field(n=50)
    field.values[:, 0] = np.linspace(0, 1, 50)
    colors = gaussian_colors(field, "intensity", "gray")
    assert (np.diff(colors[:, 0]) >= 0).all()
    assert colors[0, 0] == 0
    assert colors[-1, 0] == 1
    errors = gaussian_colors(field, "error", "gray", np.arange(50)[::-1])
    assert errors[0, 0] == 1
    assert errors[-1, 0] == 0
    dark = is_background(field, "intensity")
    np.testing.assert_array_equal(dark, field.values[:, 0] < 0.12)


def test_restyle_changes_all_or_nothing():
    _viewer, _field, _image, overlay = scene()
    with pytest.raises(ParameterError, match="classes"):
        overlay.restyle(color_by="class")
    with pytest.raises(ParameterError, match="error"):
        overlay.restyle(color_by="error")
    with pytest.raises(ParameterError, match="size"):
        overlay.restyle(sigmas=0)
    assert overlay.style == ALL
    small = np.ptp(overlay.layer.data[0], axis=0)
    before = len(overlay.layer.data[0])
    overlay.restyle(sigmas=2.0, opacity=0.3)
    assert overlay.layer.opacity == pytest.approx(0.3)
    assert len(overlay.layer.data[0]) > before
    assert (np.ptp(overlay.layer.data[0], axis=0)[1:] >= small[1:]).all()


def test_a_hidden_overlay_waits_and_catches_up():
    viewer, field, _image, overlay = scene()
    viewer.dims.set_current_step(0, 5)
    overlay.layer.visible = False
    before = overlay.layer.data[0]
    viewer.dims.set_current_step(0, 9)
    assert overlay.layer.data[0] is before
    overlay.layer.visible = True
    _, points = expected_vertices(field, 0, 9)
    np.testing.assert_allclose(overlay.layer.data[0], points, atol=1e-4)


def test_slices_without_gaussians_are_empty():
    viewer, field, _image, overlay = scene()
    field.centers[:, 2] = 10  # all far from slice 0
    viewer.dims.set_current_step(0, 0)
    assert overlay.shown == 0
    assert overlay.layer.vertex_colors[:, 3].max() == 0


def test_flat_images():
    viewer = ViewerModel()
    field = random_field(n=20, degree=0, shape=(1, 24, 28))
    field.centers[:, 2] = 0
    image = viewer.add_image(np.random.default_rng(0).random((24, 28)), scale=(2, 2))
    overlay = GaussianOverlay(viewer, field, frame_of(image), image, ALL)
    assert overlay.layer.ndim == 2
    assert overlay.shown == 20
    _found, points = expected_vertices(field, 0, 0)
    np.testing.assert_allclose(overlay.layer.data[0], points[:, 1:], atol=1e-4)


def test_more_dimensions_in_the_viewer_do_not_matter():
    viewer, field, image, overlay = scene()
    viewer.add_image(np.zeros((3, *image.data.shape)))
    viewer.dims.set_current_step(1, 9)
    _, points = expected_vertices(field, 0, 9)
    np.testing.assert_allclose(overlay.layer.data[0], points, atol=1e-4)
    viewer.dims.order = (1, 2, 0, 3)  # the image is seen edge-on: no plane of it is shown
    assert overlay.shown == 0


def test_the_overlay_goes_with_its_layer():
    viewer, field, image, overlay = scene()
    assert find_overlay(viewer.layers, field) is overlay
    assert overlay_of(image) is None
    gone = weakref.ref(overlay)
    viewer.layers.remove(overlay.layer)
    viewer.layers.selection.active = image  # napari remembers the last active layer
    viewer.dims.set_current_step(0, 3)
    assert find_overlay(viewer.layers, field) is None
    del overlay
    for _ in range(3):
        gc.collect()
    viewer.dims.set_current_step(0, 4)
    assert gone() is None


def test_space_hides_what_is_darker_than_tissue():
    viewer, field, _image, overlay = scene(OverlayStyle())
    viewer.dims.ndisplay = 3
    values = sections.intensities(field)
    assert overlay.tissue == pytest.approx(tissue_threshold(field))
    assert values.min() < overlay.tissue < values.max()
    assert overlay.shown == np.count_nonzero(values >= overlay.tissue) < len(field)
    overlay.restyle(threshold=float(np.median(values)))
    assert overlay.shown == np.count_nonzero(values >= np.median(values))
    overlay.restyle(hide_background=False)
    assert overlay.shown == len(field)
    # Slices go on showing all but the darkest.
    overlay.restyle(hide_background=True)
    viewer.dims.ndisplay = 2
    viewer.dims.set_current_step(0, 9)
    found = sections.cut(field, 0, 9, 1.0)
    assert overlay.shown == np.count_nonzero(values[found.index] >= 0.12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_space_is_cut_into_a_slab_in_millimeters(axis):
    viewer, field, _image, overlay = scene(OverlayStyle(hide_background=False))
    viewer.dims.ndisplay = 3
    spacing = overlay.frame.grid.spacing[axis]
    assert overlay.extent[axis] == pytest.approx((overlay.frame.grid.shape[axis] - 1) * spacing)
    low, high = 0.2 * overlay.extent[axis], 0.6 * overlay.extent[axis]
    overlay.restyle(clip_axis=axis, clip=(low, high))
    places = field.voxel_centers()[:, axis] * spacing
    assert overlay.shown == np.count_nonzero((places >= low) & (places <= high)) > 0
    drawn = overlay.layer.data[0][:, axis] * spacing
    assert drawn.min() >= low - 1e-3
    assert drawn.max() <= high + 1e-3
    overlay.restyle(clip_axis=None)
    assert overlay.shown == len(field)
    for bad in ({"clip_axis": 3}, {"clip": (2.0, 1.0)}):
        with pytest.raises(ParameterError):
            overlay.restyle(**bad)


def test_alike_gaussians_have_no_threshold():
    field = random_field(n=20)
    field.values[:, 0] = 0.5
    assert tissue_threshold(field) == pytest.approx(sections.intensities(field)[0])
