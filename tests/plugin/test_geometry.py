"""From layers of any reader to canonical volumes and back."""

import numpy as np
import pytest
from napari.components import Dims, ViewerModel
from napari.layers import Image, Labels, Surface

from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError, ImageError, LabelError
from napari_medgs.plugin import layer_frame as geometry
from napari_medgs.plugin.layer_frame import (
    LayerFrame,
    check_sliceable,
    frame_of,
    geometry_kwargs,
    grid_kwargs,
    is_cut_straight,
    layer_to_ras,
    same_place,
    visible_slice,
    world_of_slice,
)
from napari_medgs.plugin.layer_orientation import layer_matrix
from napari_medgs.plugin.layer_volumes import labels_like, volume_from_layers
from napari_medgs.plugin.segment.context import SegmentContext

RAMP = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
TURN = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")


@pytest.mark.parametrize(
    "options",
    [
        {"scale": (2, -1, 3), "translate": (5, 6, 7)},
        {"scale": (2, 1, 3), "rotate": TURN, "shear": (0.1, 0.2, 0.3)},
        {"affine": np.eye(4)[[2, 0, 1, 3]], "units": ("um",) * 3},
        {"axis_labels": ("a", "b", "c"), "affine": np.diag([2, 3, 4, 1.0])},
    ],
)
def test_derived_layers_lie_where_their_source_does(options):
    source = Image(RAMP, **options)
    kwargs = geometry_kwargs(source)
    for made in (
        Labels(np.zeros(RAMP.shape, int), **kwargs),
        Surface((np.zeros((3, 3)), np.array([[0, 1, 2]])), **kwargs),
    ):
        np.testing.assert_allclose(layer_matrix(made), layer_matrix(source), atol=1e-12)
        assert made.units == source.units
        assert made.axis_labels == source.axis_labels


def test_a_layer_of_our_reader_keeps_the_true_oblique_grid():
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]]) @ TURN @ np.diag([3, 1, 1.5])
    affine[:3, 3] = [10, 20, 30]
    grid = Grid(RAMP.shape, affine, {"kind": "nifti"})
    layer = Image(RAMP, **grid_kwargs(grid))
    assert np.linalg.det(layer_matrix(layer)[:3, :3]) > 0  # drawn straight and upright
    frame = frame_of(layer)
    np.testing.assert_array_equal(frame.grid.affine, affine)
    assert frame.grid.source == {"kind": "nifti"}
    # The middle is at its true place in the viewer: superior, posterior, left.
    middle = (np.array(RAMP.shape) - 1) / 2
    right, anterior, superior = grid.to_world(middle)
    np.testing.assert_allclose(layer.data_to_world(middle), [superior, -anterior, -right])
    # Once moved, where it is in the viewer counts.
    layer.translate = np.add(layer.translate, (1, 0, 0))
    moved = frame_of(layer).grid
    assert moved.source == {}
    np.testing.assert_allclose(moved.spacing, grid.spacing)
    np.testing.assert_allclose(moved.to_world(middle), [right, anterior, superior + 1])


@pytest.mark.parametrize(
    "options",
    [
        {"scale": (2, -1, 3), "translate": (5, 6, 7)},
        {"scale": (-2, -1, -3)},
        {"affine": np.diag([2.0, 3, 4, 1])[[2, 0, 1, 3]]},
        {"scale": (2, 1, 3), "rotate": TURN},
    ],
)
def test_foreign_layers_become_canonical_and_back(options):
    layer = Image(RAMP, **options)
    volume, frame = volume_from_layers([layer])
    back = frame.to_layer(volume.data[0])
    np.testing.assert_array_equal(back, RAMP)
    assert back.flags.c_contiguous
    # Every voxel keeps its world place: indices grow to superior, posterior, left.
    directions = volume.grid.affine[:3, :3] / np.linalg.norm(volume.grid.affine[:3, :3], axis=0)
    assert directions[2, 0] > 0.7
    assert directions[1, 1] < -0.7
    assert directions[0, 2] < -0.7
    rng = np.random.default_rng(0)
    voxels = np.stack([rng.integers(0, n, 20) for n in volume.shape], axis=1)
    points = frame.points_to_layer(voxels)
    assert all(RAMP[tuple(p)] == volume.data[0][tuple(v)] for p, v in zip(points, voxels))
    z, y, x = np.array([layer.data_to_world(p) for p in points]).T
    np.testing.assert_allclose(
        volume.grid.to_world(voxels), np.stack([-x, -y, z], axis=1), atol=1e-9
    )
    for axis in range(3):
        one = np.zeros((1, 3))
        one[0, axis] = 1
        step = np.flatnonzero(frame.points_to_layer(one)[0] != frame.points_to_layer(0 * one)[0])
        assert frame.canonical_axis(int(step[0])) == axis
    assert LayerFrame.from_dict(frame.to_dict()).to_dict() == frame.to_dict()


def test_units_become_millimeters():
    layer = Image(RAMP, scale=(1000, 500, 250), units=("um",) * 3)
    assert frame_of(layer).grid.spacing == pytest.approx((1.0, 0.5, 0.25))
    assert np.abs(layer_to_ras(layer)[:3, :3]).max() == pytest.approx(1.0)
    mixed = Image(RAMP, units=("um", "mm", "mm"))
    with pytest.raises(GeometryError, match="units"):
        frame_of(mixed)


@pytest.mark.parametrize(
    ("units", "scale", "same"),
    [
        (("mm",) * 3, (1, 1, 1), True),
        (("um",) * 3, (1, 1, 1), False),
        (("um",) * 3, (1000, 1000, 1000), True),
        (("mm", "mm", "um"), (1, 1, 1), False),
        (("mm", "mm", "um"), (1, 1, 1000), True),
        (("pixel",) * 3, (1, 1, 1), True),  # no length: as drawn
        (("pixel",) * 3, (1000, 1000, 1000), False),
    ],
)
def test_units_take_part_in_comparisons_of_places(units, scale, same):
    image = Image(RAMP, units=("mm",) * 3)
    other = Labels(RAMP.astype(int), scale=scale, units=units)
    assert same_place(image, other) is same
    assert same_place(other, image) is same


def test_a_layer_whose_unit_was_changed_is_no_longer_at_its_files_place():
    grid = Grid(RAMP.shape, source={"kind": "nifti"})
    layer = Image(RAMP, **grid_kwargs(grid))
    layer.units = ("um",) * 3
    assert frame_of(layer).grid.spacing == pytest.approx((1e-3,) * 3)
    np.testing.assert_allclose(np.abs(np.linalg.det(layer_to_ras(layer))), 1e-9)


def test_flat_images_are_one_slice():
    layer = Image(RAMP[0], scale=(0.5, 0.25), translate=(3, 4))
    volume, frame = volume_from_layers([layer])
    assert volume.data.shape == (1, 1, 5, 6)
    assert volume.spacing[1:] == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(frame.to_layer(volume.data[0]), RAMP[0])
    np.testing.assert_array_equal(frame.points_to_layer(np.array([[0, 2, 3.5]])), [[2, 3.5]])


def test_contrasts_must_share_a_place():
    first = Image(RAMP, scale=(2, 1, 1), name="t1")
    second = Image(RAMP * 2, scale=(2, 1, 1), name="t2")
    volume, _ = volume_from_layers([first, second])
    assert volume.data.shape == (2, 4, 5, 6)
    assert volume.channel_names == ("t1", "t2")
    for other in (
        Image(RAMP, scale=(2, 1, 1.1), name="t2"),
        Image(RAMP[1:], scale=(2, 1, 1), name="t2"),
        Image(RAMP, scale=(2, 1, 1), translate=(0, 0, 0.1), name="t2"),
        Image(RAMP[0], name="t2"),
    ):
        assert not same_place(first, other)
        with pytest.raises(GeometryError, match="t2"):
            volume_from_layers([first, other])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Image(np.zeros((5, 6, 3), np.uint8), rgb=True), "Split RGB"),
        (Image(np.zeros((2, 4, 5, 6))), "Split Stack"),
        (Image(RAMP, metadata={geometry.ITEMS_KEY: 4}), "Load"),
    ],
)
def test_what_cannot_be_fitted_is_refused(layer, message):
    with pytest.raises(ImageError, match=message):
        volume_from_layers([layer])


def test_no_image_and_singular_transforms_are_refused():
    with pytest.raises(ImageError, match="Choose"):
        volume_from_layers([])
    flat = np.eye(4)
    flat[1:3, 1:3] = [[1, 1], [1, 1 + 1e-7]]  # two axes run along one line
    with pytest.raises(GeometryError, match="scale"):
        frame_of(Image(RAMP, affine=flat))


def test_masks_must_fit_their_image():
    image = Image(RAMP, scale=(2, -1, 1), name="scan")
    frame = frame_of(image)
    mask = Labels((RAMP > 50).astype(int), scale=(2, -1, 1))
    np.testing.assert_array_equal(frame.to_layer(labels_like(mask, image, frame)), RAMP > 50)
    with pytest.raises(GeometryError, match="mask"):
        labels_like(Labels((RAMP > 50).astype(int)), image, frame)
    with pytest.raises(LabelError, match="empty"):
        labels_like(Labels(np.zeros(RAMP.shape, int), scale=(2, -1, 1)), image, frame)


def test_multiscale_images_are_read_at_full_resolution():
    layer = Image([RAMP, RAMP[::2, ::2, ::2]], multiscale=True)
    volume, _ = volume_from_layers([layer])
    np.testing.assert_array_equal(volume.data[0], RAMP)


@pytest.mark.parametrize(
    ("axes", "order", "works"),
    [
        ((0, 1, 2), (0, 1, 2), True),
        ((0, 2, 1), (0, 1, 2), True),
        ((0, 2, 1), (1, 0, 2), False),
        ((1, 2, 0), (0, 1, 2), False),
        ((2, 1, 0), (1, 0, 2), True),
        ((2, 1, 0), (0, 1, 2), False),
    ],
)
def test_slices_that_napari_cannot_show_are_refused(axes, order, works):
    affine = np.diag([3, 0.5, 0.5, 1])[[*axes, 3]]
    layer, dims = Image(RAMP, affine=affine, name="scan"), Dims(ndim=3, order=order)
    if works:
        check_sliceable(layer, dims)
        # napari agrees.
        layer._transforms[1:].simplified.set_slice(list(dims.displayed)).inverse  # noqa: B018
        return
    with pytest.raises(GeometryError, match=r"^napari cannot show 'scan' in these slices"):
        check_sliceable(layer, dims)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.inv(
            layer._transforms[1:].simplified.set_slice(list(dims.displayed)).affine_matrix
        )


@pytest.mark.parametrize("turn", ["straight", "in the slice", "out of it", "sheared out"])
def test_the_slice_on_show_is_the_one_that_napari_draws(turn):
    c, s = np.cos(0.4), np.sin(0.4)
    place = {
        "straight": {"scale": (2, 1, 1), "translate": (-7, 3, 0)},
        "in the slice": {"rotate": np.array([[1, 0, 0], [0, c, -s], [0, s, c]])},
        "out of it": {"rotate": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])},
        "sheared out": {"affine": np.eye(4) + 0.4 * (np.arange(16).reshape(4, 4) == 1)},
    }[turn]
    viewer = ViewerModel()
    data = np.broadcast_to(np.arange(12.0)[:, None, None], (12, 20, 24))
    layer = viewer.add_image(data, **place)
    frame = frame_of(layer)
    assert is_cut_straight(viewer.dims, layer) is (turn in ("straight", "in the slice"))
    for wanted in (3, 8):
        viewer.dims.set_point(0, world_of_slice(layer, 0, wanted))
        drawn = np.unique(layer._slice.image.raw)
        assert drawn.tolist() == [wanted]
        assert visible_slice(viewer.dims, layer, frame) == (0, wanted)


def test_a_segmentation_of_a_layer_that_is_cut_obliquely_says_so(blob, notes):
    viewer = ViewerModel()
    c, s = np.cos(0.4), np.sin(0.4)
    turned = viewer.add_image(blob, rotate=np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]))
    SegmentContext(viewer).load_images([turned])
    ((severity, text),) = notes
    assert severity == "warning"
    assert "Open its file with MedGS" in text
    SegmentContext(viewer).load_images([viewer.add_image(blob, scale=(2, -1, 1))])
    assert len(notes) == 1
