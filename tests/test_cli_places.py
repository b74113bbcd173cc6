"""Points and boxes on the command line mean the voxel that nibabel and ITK mean."""

from __future__ import annotations

import itertools
import json
import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import inv_ornt_aff
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.cli.place_prompts import PlacePrompts
from napari_medgs.cli.places import join_places
from napari_medgs.data.grid import Grid
from napari_medgs.data.stored_axes import box_from_stored, from_stored, stored_shape, to_stored
from napari_medgs.data.volume import Volume
from napari_medgs.io import read_volume, write_frames

SHAPE = (5, 7, 9)  # i, j, k
TURNED = [
    np.array([[a, x], [b, y], [c, z]])
    for (a, b, c), (x, y, z) in itertools.product(
        itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)
    )
]


def oblique() -> np.ndarray:
    """An affine whose axes are turned by 20 and 10 degrees, with three voxel sizes."""
    a, b = np.radians((20, 10))
    first = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = first @ second @ np.diag([0.7, 1.1, 2.5])
    affine[:3, 3] = (-12, 30, 5)
    return affine


def run(*words: object, status: int = 0):
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, f"{result.output}\n{result.stderr}\n{result.exception}"
    return result


def said(result) -> str:
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


def place(points=(), boxes=(), *, world=False) -> PlacePrompts:
    return PlacePrompts.read(points, boxes, world=world, unlabeled=0, background=None)


@pytest.mark.parametrize("turn", TURNED, ids=lambda t: "".join(map(str, t.ravel())))
def test_a_stored_index_is_nibabels(tmp_path, rng, turn):
    """In all 48 orders and directions of the axes, plain and oblique."""
    data = rng.permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    affine = oblique() @ inv_ornt_aff(turn, SHAPE)
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "t.nii")
    volume = read_volume(tmp_path / "t.nii")
    assert stored_shape(volume.grid) == SHAPE[::-1]
    i, j, k = 1, 5, 6
    r, a, s = (affine @ (i, j, k, 1))[:3]
    written = place([f"1 {k} {j} {i}"]), place([f"1 {r} {a} {s}"], world=True)
    for prompts in written:
        (point,), _ = prompts.on(volume.grid, "t.nii")
        z, y, x = np.rint(point.position).astype(int)
        assert np.allclose(point.position, (z, y, x), atol=1e-3)
        assert volume.data[0, z, y, x] == data[i, j, k]
    _, (box,) = place(boxes=["2 1 2 0 8 5 4"]).on(volume.grid, "t.nii")
    inside = volume.data[0][tuple(slice(a, b) for a, b in zip(box.start, box.stop))]
    assert sorted(inside.ravel()) == sorted(data[0:4, 2:5, 1:8].ravel())


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 1, -1, 0, 0, 0, -1, 0)])
def test_a_stored_index_is_that_of_itk(tmp_path, rng, direction):
    data = rng.permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)  # z, y, x
    image = sitk.GetImageFromArray(data)
    image.SetSpacing((0.5, 1.5, 3.0))
    image.SetOrigin((10, -20, 30))
    image.SetDirection(direction)
    sitk.WriteImage(image, str(tmp_path / "t.nrrd"))
    volume = read_volume(tmp_path / "t.nrrd")
    (point,), _ = place(["1 3 2 8"]).on(volume.grid, "t.nrrd")
    z, y, x = np.rint(point.position).astype(int)
    assert volume.data[0, z, y, x] == data[3, 2, 8]
    left, back, up = image.TransformIndexToPhysicalPoint((8, 2, 3))
    (same,), _ = place([f"1 {-left} {-back} {up}"], world=True).on(volume.grid, "t.nrrd")
    assert np.allclose(same.position, point.position, atol=1e-4)


def test_a_stored_index_of_frames_is_frame_row_column(tmp_path, rng):
    data = rng.integers(0, 255, (4, 6, 5)).astype(np.uint8)
    write_frames(tmp_path / "frames", data, Volume.from_array(data, (3.0, 1.0, 1.0)).grid)
    volume = read_volume(tmp_path / "frames", spacing=(3.0, 1.0, 1.0))
    (point,), _ = place(["1 3 4 2"]).on(volume.grid, "frames")
    assert point.position == (3.0, 4.0, 2.0)
    assert volume.data[0, 3, 4, 2] == data[3, 4, 2]


@given(
    turn=st.sampled_from(TURNED),
    points=st.lists(st.tuples(*[st.floats(-20, 20)] * 3), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_stored_and_canonical_places_are_inverse(turn, points):
    affine = oblique() @ inv_ornt_aff(turn, SHAPE)
    grid = Volume.from_axes(np.zeros((1, *SHAPE), np.uint8), affine, source={"kind": "nifti"}).grid
    assert np.allclose(to_stored(grid, from_stored(grid, points)), points)
    files = np.asarray(points)[:, ::-1]
    world = files @ affine[:3, :3].T + affine[:3, 3]
    assert np.allclose(grid.to_world(from_stored(grid, points)), world)


def test_a_grid_without_a_file_has_its_own_indices():
    grid = Grid((4, 5, 6))
    assert from_stored(grid, (1, 2, 3)).tolist() == [1, 2, 3]
    assert box_from_stored(grid, (0, 0, 0), (4, 5, 6)) == ((0, 0, 0), (4, 5, 6))


@pytest.mark.parametrize("turn", TURNED[::7], ids=lambda t: "".join(map(str, t.ravel())))
def test_a_box_in_millimeters_has_the_voxels_whose_centers_it_holds(turn):
    """On axes along the patient's; independent of the order of the two corners."""
    affine = np.diag([0.7, 1.1, 2.5, 1.0]) @ inv_ornt_aff(turn, SHAPE)
    grid = Volume.from_axes(np.zeros((1, *SHAPE), np.uint8), affine, source={"kind": "nifti"}).grid
    centers = grid.to_world(np.stack(np.indices(grid.shape), -1))
    low, high = centers.min((0, 1, 2)) + 0.4, centers.max((0, 1, 2)) - 0.8
    inside = ((centers >= low) & (centers <= high)).all(-1)
    for first, second in ((low, high), (high, low)):
        text = " ".join(str(v) for v in (1, *first, *second))
        _, (box,) = place(boxes=[text], world=True).on(grid, "x")
        found = np.zeros(grid.shape, bool)
        found[tuple(slice(a, b) for a, b in zip(box.start, box.stop))] = True
        assert np.array_equal(found, inside)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["--point", "1", "2", "3", "4", "x"], ["--point=1 2 3 4", "x"]),
        (["--point", "1", "-2", "3", "4"], ["--point=1 -2 3 4"]),
        (["--point", "1,2,3,4", "7"], ["--point=1,2,3,4", "7"]),
        (["--point", "1", "2", "x"], ["--point=1 2", "x"]),
        (["--point", "1", "2", "3", "4", "5"], ["--point=1 2 3 4", "5"]),
        (["--point=1 2 3 4"], ["--point=1 2 3 4"]),
        (["--box", "1", "2"], ["--box", "1", "2"]),
        (["--point"], ["--point="]),
    ],
)
def test_words_of_a_place_are_joined(written, meant):
    assert join_places(written, {"--point"}) == meant


@pytest.fixture
def ball(tmp_path):
    """A bright ball in an image of turned axes, with the ball by nibabel's indices."""
    i, j, k = np.indices((26, 20, 14))
    inside = (i - 9) ** 2 + (j - 12) ** 2 + (1.5 * (k - 6)) ** 2 < 36
    noise = np.random.default_rng(3).normal(0, 4, inside.shape)
    affine = oblique() @ inv_ornt_aff(np.array([[2, -1], [0, 1], [1, -1]]), inside.shape)
    image = nibabel.Nifti1Image((100 * inside + noise).astype(np.float32), affine)
    nibabel.save(image, tmp_path / "ball.nii.gz")
    return tmp_path / "ball.nii.gz", inside, affine


def overlap(path, inside) -> float:
    found = np.asarray(nibabel.load(path).dataobj) == 1
    return 2 * np.count_nonzero(found & inside) / (found.sum() + inside.sum())


def test_points_segment_what_they_name(ball, tmp_path):
    image, inside, affine = ball
    out = tmp_path / "m.nii.gz"
    run("segment", image, "-o", out, "--point", 1, 6, 12, 9, "--point", 0, 1, 2, 22,
        "--point", "0,12,17,3", "--json", tmp_path / "n.json")  # fmt: skip
    assert overlap(out, inside) > 0.8
    assert set(json.loads((tmp_path / "n.json").read_text())["voxels"]) >= {"1"}
    first = np.asarray(nibabel.load(out).dataobj)
    words = []
    for label, z, y, x in ((1, 6, 12, 9), (0, 1, 2, 22), (0, 12, 17, 3)):
        words += ["--point", label, *(affine @ (x, y, z, 1))[:3]]
    run("segment", image, "-o", out, "--world", *words)
    assert np.array_equal(np.asarray(nibabel.load(out).dataobj), first)


def test_a_box_alone_segments_and_holds_the_class(ball, tmp_path):
    image, inside, _ = ball
    out = tmp_path / "m.nii.gz"
    run("segment", image, "--box", 1, 1, 5, 2, 11, 19, 17, "-o", out)
    found = np.asarray(nibabel.load(out).dataobj) == 1
    assert overlap(out, inside) > 0.8
    outside = found.copy()
    outside[2:17, 5:19, 1:11] = False
    assert not outside.any()


def test_places_combine_with_strokes(ball, tmp_path):
    image, inside, affine = ball
    strokes = np.zeros(inside.shape, np.uint8)
    strokes[20:25, 2:18, 6] = 9
    nibabel.save(nibabel.Nifti1Image(strokes, affine), tmp_path / "s.nii.gz")
    out = tmp_path / "m.nii.gz"
    run("segment", image, "--prompts", tmp_path / "s.nii.gz", "--background-label", 9,
        "--point", 1, 6, 12, 9, "-o", out)  # fmt: skip
    assert overlap(out, inside) > 0.8


def test_strokes_outside_of_a_box_are_told_of(ball, tmp_path):
    image, inside, affine = ball
    strokes = np.zeros(inside.shape, np.uint8)
    strokes[20:25, 2:18, 6] = 9
    strokes[8:12, 9:11, 6] = 1
    file = tmp_path / "s.nii.gz"
    nibabel.save(nibabel.Nifti1Image(strokes, affine), file)
    words = ("segment", image, "--prompts", file, "--background-label", 9, "-o",
             tmp_path / "m.nii.gz", "--box", 1, 1, 5, 2, 11, 19)  # fmt: skip
    assert "outside" not in said(run(*words, 17))
    told = said(run(*words, 10))
    assert told.count("warning: 4 voxels marked as class 1 lie outside of its boxes") == 1


def test_a_slice_that_is_nearly_full_is_told_of(ball, tmp_path):
    image, inside, affine = ball
    strokes = np.where(inside, 1, 9).astype(np.uint8)
    strokes[..., :6] = strokes[..., 7:] = 0
    full = tmp_path / "full.nii.gz"
    nibabel.save(nibabel.Nifti1Image(strokes, affine), full)
    words = ("segment", image, "--background-label", 9, "-o", tmp_path / "m.nii.gz", "--prompts")
    assert "fully" not in said(run(*words, full))
    strokes[1, [2, 5], 6] = 0
    gaps = tmp_path / "gaps.nii.gz"
    nibabel.save(nibabel.Nifti1Image(strokes, affine), gaps)
    told = said(run(*words, gaps))
    assert f"{gaps}: Not fully labeled: slice 6 along z lacks 2 voxels." in told


def test_a_class_drawn_in_some_slices_needs_no_background(ball, tmp_path):
    image, inside, affine = ball
    drawn = np.zeros(inside.shape, np.uint8)
    for k in (4, 6, 8):
        drawn[..., k] = inside[..., k]
    some = tmp_path / "some.nii.gz"
    nibabel.save(nibabel.Nifti1Image(drawn, affine), some)
    out, log = tmp_path / "m.nii.gz", tmp_path / "m.json"
    words = ("segment", image, "-o", out, "--prompts", some)
    assert "--fully-labeled" in said(run(*words, status=1))  # one class alone
    told = said(run(*words, "--fully-labeled", "--json", log))
    assert "warning" not in told
    mask = np.asarray(nibabel.load(out).dataobj)
    for k in (4, 6, 8):
        np.testing.assert_array_equal(mask[..., k], drawn[..., k])
    assert overlap(out, inside) > 0.85


def test_slices_of_several_orientations_are_not_told_apart(ball, tmp_path):
    image, inside, affine = ball
    drawn = np.zeros(inside.shape, np.uint8)
    drawn[..., 6] = inside[..., 6]
    drawn[:, 12] = inside[:, 12]
    crossed = tmp_path / "crossed.nii.gz"
    nibabel.save(nibabel.Nifti1Image(drawn, affine), crossed)
    words = ("segment", image, "-o", tmp_path / "m.nii.gz", "--fully-labeled")
    told = said(run(*words, "--prompts", crossed, status=1))
    assert f"{crossed}: the label image is drawn in slices of several orientations" in told
    empty = tmp_path / "empty.nii.gz"
    nibabel.save(nibabel.Nifti1Image(0 * drawn, affine), empty)
    assert f"{empty}: " in said(run(*words, "--prompts", empty, status=1))
    assert "--fully-labeled is for --prompts" in said(run(*words, "--point", 1, 1, 1, 1, status=2))


def test_classes_without_any_background(ball, tmp_path):
    image = ball[0]
    two = ("segment", image, "-o", tmp_path / "m.nii.gz", "--point", 1, 6, 12, 9)
    assert "warning" not in said(run(*two, "--point", 0, 1, 1, 1))
    told = said(run(*two, "--point", 2, 1, 1, 1))
    assert f"warning: {image}: the classes divide the whole image" in told
    assert told.count("no background is marked") == 1
    assert "--background-label" in told


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        (("--point", 1, 14, 0, 0, "--point", 0, 1, 1, 1),
         "--point 1 14 0 0: lies outside of {image}, which has 14 x 20 x 26 voxels", 1),
        (("--point", 1, -1, 0, 0, "--point", 0, 1, 1, 1), "--point 1 -1 0 0: lies outside", 1),
        (("--world", "--point", 1, 500, 0, 0, "--point", 0, 1, 1, 1),
         "lies outside of {image}, which reaches from R", 1),
        (("--point", 1, 6, 12, 9), "--point marks the class 1 only: give a --point of 0", 1),
        (("--point", 0, 6, 12, 9), "--point marks background only: give a --point of a class", 1),
        (("--point", "liver", 6, 12, 9), "'liver' is no number; give LABEL Z Y X", 2),
        (("--point", 1, 6, 12), "3 numbers where 4 are needed: LABEL Z Y X", 2),
        (("--point", "1.5", 6, 12, 9), "the label 1.5 is no whole number from 0", 2),
        (("--point", -1, 6, 12, 9), "the label -1 is no whole number from 0", 2),
        (("--point", "nan", 6, 12, 9), "'nan' is no number", 2),
        (("--point", 7, 6, 12, 9, "--unlabeled", 7), "the label 7 means unlabeled", 2),
        (("--box", 1, 0, 0, 0, 15, 20, 26), "reaches out of {image}, which has 14 x 20", 1),
        (("--box", 1, 3, 3, 3, 3, 9, 9), "is empty; the stop is one past the last voxel", 1),
        (("--box", 1, 0.5, 0, 0, 3, 3, 3), "the sides of a box are whole voxels", 1),
        (("--box", 0, 1, 1, 1, 3, 3, 3), "a box holds a class, not background", 2),
        (("--box", 1, 1, 1, 1), "4 numbers where 7 are needed", 2),
        (("--world", "--box", 1, 500, 0, 0, 510, 9, 9), "holds no voxel center of {image}", 1),
        (("--world",), "give --prompts, --point, --box, --initial, --session or --model", 2),
        ((), "give --prompts, --point, --box, --initial, --session or --model", 2),
    ],
)  # fmt: skip
def test_places_that_cannot_be_are_one_line(ball, tmp_path, words, says, status):
    image, _, _ = ball
    out = tmp_path / "m.nii.gz"
    result = run("segment", image, "-o", out, *words, status=status)
    assert says.format(image=image) in said(result)
    if status == 1:
        assert len(result.stderr.splitlines()) == 1
    assert not out.exists()


def test_a_folder_and_a_session_take_no_places(ball, tmp_path):
    image, _, affine = ball
    folder = tmp_path / "prompts"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), affine), folder / "a.nii.gz")
    words = ("--point", 1, 1, 1, 1)
    assert "one image at a time" in said(
        run("segment", tmp_path, "--prompts", folder, "-o", tmp_path / "o", *words, status=2)
    )
    text = said(run("segment", image, "--session", tmp_path / "s.json", "-o", tmp_path / "o.nii",
                    *words, status=2))  # fmt: skip
    assert "--session has its own --point" in text
