"""Planes stand upright in the viewer, with letters at its borders."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from napari_medgs.data.grid import Grid
from napari_medgs.plugin.anatomy.follower import follow_planes
from napari_medgs.plugin.anatomy.planes import Directions
from napari_medgs.plugin.layer_frame import grid_kwargs

AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
ALL = ["".join(t) for t in itertools.product("RL", "AP", "SI")]
SYSTEMS = ["".join(p) for letters in ALL for p in itertools.permutations(letters)]


def vector(letter):
    """The unit vector of a direction in right, anterior, superior."""
    unit = np.zeros(3)
    unit[AXIS[letter]] = 1 if letter in "RAS" else -1
    return unit


@pytest.mark.parametrize("letters", SYSTEMS)
def test_every_plane_of_every_world_is_upright_and_not_mirrored_in_3d(letters):
    directions = Directions(letters)
    for hidden in range(3):
        order = directions.order_for(hidden)
        borders = directions.borders(order)
        assert (borders["top"], borders["right"]) in {("S", "L"), ("S", "P"), ("A", "L")}
        depth, vertical, horizontal = directions.orientation(order)
        right = vector(letters[order[2]]) * (1 if horizontal == "right" else -1)
        down = vector(letters[order[1]]) * (1 if vertical == "down" else -1)
        away = vector(letters[order[0]]) * (1 if depth == "away" else -1)
        # Right, down and away are right-handed for whoever looks at a screen.
        assert np.linalg.det([right, down, away]) > 0
        np.testing.assert_array_equal(right, vector(borders["right"]))
        np.testing.assert_array_equal(down, vector(borders["bottom"]))


@pytest.fixture
def coded(tmp_path):
    """Write a NIfTI file whose voxels tell the side, from axes in any order; return its path."""

    def write(codes, sizes=(2.0, 2.0, 2.0), name="scan.nii.gz"):
        shape = (12, 14, 16)
        world = np.indices(shape).astype(np.float32)
        data = world[0] + 100 * world[1] + 10_000 * world[2]
        image = nib.Nifti1Image(data, np.diag([*sizes, 1.0]))
        orientation = nib.orientations.axcodes2ornt(codes)
        path = tmp_path / name
        nib.save(image.as_reoriented(orientation), path)
        return path

    return write


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_opened_files_are_upright_in_three_planes(make_viewer, coded, codes):
    viewer = make_viewer()
    (layer,) = viewer.open(coded(codes), plugin="napari-medgs")
    letters = follow_planes(viewer).letters
    seen = set()
    for _ in range(3):
        assert letters.shown["top"] in "SA"
        assert letters.shown["right"] in "LP"
        # Independent of our own reckoning: what the canvas draws above is higher in the patient.
        scene = viewer.window._qt_viewer.canvas.view.scene.transform
        shown = viewer.dims.displayed
        low, high = (np.array(layer.extent.world[k]) for k in (0, 1))
        middle = (low + high) / 2
        for axis in shown:
            grown = middle.copy()
            grown[axis] = high[axis]
            moved = scene.map([grown[shown[1]], grown[shown[0]]])[:2]
            still = scene.map([middle[shown[1]], middle[shown[0]]])[:2]
            x, y = np.asarray(moved) - np.asarray(still)
            letter = "SPL"[axis]
            drawn = {"S": y < 0, "P": y > 0 or x > 0, "L": x > 0}[letter]
            assert drawn, (letter, x, y)
        seen.add(viewer.dims.order[0])
        viewer.dims.roll()
    assert seen == {0, 1, 2}
    viewer.dims.ndisplay = 3
    assert letters.shown == {}


def test_volumes_in_time_are_upright_too(make_viewer, tmp_path):
    data = np.random.default_rng(0).random((6, 7, 5, 9)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([1, 1, 4, 1.0])), tmp_path / "bold.nii.gz")
    viewer = make_viewer()
    (layer,) = viewer.open(tmp_path / "bold.nii.gz", plugin="napari-medgs")
    assert layer.ndim == 4
    letters, seen = follow_planes(viewer).letters, set()
    for _ in range(3):
        assert (letters.shown["top"], letters.shown["right"]) in {
            ("S", "L"), ("S", "P"), ("A", "L"),
        }  # fmt: skip
        seen.add(frozenset(viewer.dims.displayed))
        viewer.dims.roll()
    assert seen == {frozenset(pair) for pair in ((1, 2), (1, 3), (2, 3))}


def test_transposing_by_hand_is_respected(make_viewer, coded):
    viewer = make_viewer()
    viewer.open(coded("RAS"), plugin="napari-medgs")
    viewer.dims.roll()
    viewer.dims.roll()
    assert viewer.dims.order == (1, 0, 2)
    viewer.dims.transpose()
    assert viewer.dims.order == (1, 2, 0)
    letters = follow_planes(viewer).letters.shown
    assert (letters["bottom"], letters["left"]) == ("L", "S")


def test_exports_are_the_same_bits_in_every_plane(make_viewer, coded, tmp_path):
    source = coded("PIR")
    viewer = make_viewer()
    (layer,) = viewer.open(source, plugin="napari-medgs")
    before = nib.load(source)
    for plane in range(3):
        target = tmp_path / f"out{plane}.nii.gz"
        layer.save(str(target), plugin="napari-medgs")
        after = nib.load(target)
        there = nib.as_closest_canonical(after)
        here = nib.as_closest_canonical(before)
        np.testing.assert_array_equal(there.get_fdata(), here.get_fdata())
        np.testing.assert_allclose(there.affine, here.affine)
        viewer.dims.roll()


def test_thick_slices_are_shown_first_and_only_once(make_viewer, coded):
    viewer = make_viewer()
    for thick, order in ((0, (2, 0, 1)), (1, (1, 0, 2)), (2, (0, 1, 2))):
        sizes = [1.0, 1.0, 1.0]
        sizes[thick] = 8.0
        viewer.open(coded("RAS", sizes), plugin="napari-medgs")
        assert viewer.dims.order == order
        viewer.layers.clear()
    viewer.open(coded("RAS"), plugin="napari-medgs")
    viewer.dims.order = (2, 0, 1)
    viewer.open(coded("RAS", (1.0, 1.0, 8.0), "other.nii.gz"), plugin="napari-medgs")
    assert viewer.dims.order == (2, 0, 1)


def test_images_of_unknown_orientation_get_no_letters(make_viewer):
    viewer = make_viewer()
    follower = follow_planes(viewer)
    plain = viewer.scene.camera.orientation
    viewer.add_image(np.zeros((4, 5, 6)))
    assert follower.letters.shown == {}
    place = grid_kwargs(Grid((4, 5, 6), source={"kind": "frames"}))
    viewer.add_image(np.zeros((4, 5, 6)), **place)
    assert follower.letters.shown == {}
    assert viewer.scene.camera.orientation == plain
    known = viewer.add_image(np.ones((4, 5, 6)), **grid_kwargs(Grid((4, 5, 6))))
    viewer.dims.order = (1, 0, 2)
    assert follower.letters.shown["top"] == "S"
    viewer.layers.remove(known)
    assert follower.letters.shown == {}
    assert viewer.scene.camera.orientation == plain
