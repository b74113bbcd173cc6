"""Masks written as DICOM: read back by us, highdicom and pydicom, in every orientation."""

from __future__ import annotations

import json

import highdicom
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from napari_medgs import io
from napari_medgs.cli import app
from napari_medgs.errors import FileError, GeometryError, LabelError, ParameterError
from napari_medgs.io.dicom.masks import list_dicom_segments
from napari_medgs.io.segmented import read_segmented, segments_by_file
from tests.io.test_dicom import write_series
from tests.io.test_dicom_frames import along_z, group_of, write_enhanced

FRAME = {"FrameOfReferenceUID": "1.2.3.4"}
LIVER = (("123037004", "SCT", "Anatomical Structure"), ("10200004", "SCT", "Liver"))
NAMES = {2: "Leber groß", 7: "spleen", 300: "a \\ b"}
COLORS = {2: (1.0, 0.5, 0.0), 7: (0.2, 0.4, 0.6)}


def run(*words, status=0):
    """Run a command and return what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return result.output


def oblique():
    row = np.array([0.9602, 0.2794, 0.0]) / np.linalg.norm([0.9602, 0.2794])
    column = np.array([-0.2730, 0.9381, 0.2132])
    column -= row * (row @ column)
    return {"row": row, "column": column / np.linalg.norm(column)}


def many_volumes(folder):
    folder.mkdir()
    groups = [group_of("echo time", e) for e in (5, 10) for _ in range(4)]
    return write_enhanced(folder / "a.dcm", along_z([2, 0, 1, 3] * 2), groups=groups, **FRAME)


SERIES = {
    "axial": lambda f: write_series(f, **FRAME),
    "sagittal": lambda f: write_series(f, row=(0, 1, 0), column=(0, 0, -1), **FRAME),
    "reversed": lambda f: write_series(f, row=(-1, 0, 0), column=(0, -1, 0), **FRAME),
    "oblique": lambda f: write_series(f, **oblique(), **FRAME),
    "tilted": lambda f: write_series(f, along=(0, 0.3, 1), **FRAME),
    "one slice": lambda f: write_series(f, count=1, **FRAME),
    "frames": many_volumes,
}


def random_labels(shape, values=(0, 2, 7, 300)):
    return np.random.default_rng(1).choice(values, shape)


def text_in(path):
    """Return every text of a data set, for what must be in it."""
    return str(pydicom.dcmread(path))


@pytest.mark.filterwarnings("ignore:.*tilted")
@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("suffix", [".dcm", ".rtstruct.dcm"])
def test_masks_come_back(tmp_path, name, suffix):
    series = SERIES[name](tmp_path / "ct")
    volume = {"volume": 2} if name == "frames" else {}
    grid = io.read_volume(series, series="1.2" if volume else None).grid
    labels = random_labels(grid.shape)
    out = tmp_path / f"mask{suffix}"
    io.write_labels(out, labels, grid, NAMES, colors=COLORS, codes={7: LIVER}, source=series,
                    **volume)  # fmt: skip
    found, place, table = read_segmented(out)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(place.affine, grid.affine, atol=1e-6)
    assert table.names == {**NAMES, 300: "a / b"}
    for value, color in COLORS.items():
        np.testing.assert_allclose(table.colors[value], color, atol=2e-3)
    assert table.codes[7][1] == LIVER[1]
    np.testing.assert_array_equal(io.read_labels(out, like=grid)[0], labels)
    np.testing.assert_array_equal(io.read_volume(out).data[0], labels)
    only, _ = io.read_labels(out, like=grid, segments=["spleen"])
    np.testing.assert_array_equal(only, np.where(labels == 7, 7, 0))


@pytest.mark.filterwarnings("ignore:.*tilted")
@pytest.mark.parametrize("name", ["axial", "sagittal", "reversed", "oblique", "frames"])
def test_highdicom_sees_segments_in_place(tmp_path, name):
    series = SERIES[name](tmp_path / "ct")
    chosen = {"volume": 1} if name == "frames" else {}
    grid = io.read_volume(series, series="1.1" if chosen else None).grid
    labels = random_labels(grid.shape)
    out = io.write_labels(tmp_path / "m.dcm", labels, grid, NAMES, source=series, **chosen)
    seg = highdicom.seg.segread(out)
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Leber groß", "spleen", "a / b"]
    volume = seg.get_volume(combine_segments=True)
    index = np.argwhere(volume.array)
    lps = np.c_[index, np.ones(len(index))] @ volume.affine.T
    at = grid.to_voxel(lps[:, :3] * [-1, -1, 1])
    np.testing.assert_allclose(at, np.rint(at), atol=1e-3)
    values = np.array([0, 2, 7, 300])[volume.array[tuple(index.T)]]
    np.testing.assert_array_equal(labels[tuple(np.rint(at).astype(int).T)], values)
    assert len(index) == np.count_nonzero(labels)


def test_segmentation_repeats_patient_and_study(tmp_path):
    series = write_series(tmp_path / "ct", PatientName="Müller^Eva", PatientID="17",
                          SpecificCharacterSet="ISO_IR 100", SeriesNumber=4, **FRAME)  # fmt: skip
    grid = io.read_volume(series).grid
    slices = {pydicom.dcmread(p).SOPInstanceUID for p in series.iterdir()}
    for name in ("m.dcm", "m.rtstruct.dcm"):
        out = io.write_labels(tmp_path / name, np.ones(grid.shape, int), grid, source=series)
        data = pydicom.dcmread(out)
        assert str(data.PatientName) == "Müller^Eva"
        assert (data.PatientID, data.StudyInstanceUID, data.SeriesNumber) == ("17", "1.2.3", 401)
        assert data.FrameOfReferenceUID == "1.2.3.4"
        assert all(uid in text_in(out) for uid in slices)
        assert [s.name for s in list_dicom_segments(out)] == ["Label 1"]


def test_contours_have_the_volume_of_the_voxels(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    labels = random_labels(grid.shape, (0, 1, 1))
    out = io.write_labels(tmp_path / "m.rtstruct.dcm", labels, grid, source=series)
    area = 0.0
    for contour in pydicom.dcmread(out).ROIContourSequence[0].ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints
        x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
        area += abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area * grid.spacing[0] == pytest.approx(labels.sum() * grid.voxel_volume, rel=1e-6)


def test_a_mask_from_elsewhere_is_placed_on_the_series(tmp_path):
    series = SERIES["oblique"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    part = io.write_labels(tmp_path / "part.nii.gz", random_labels(grid.shape), grid)
    cropped, affine = io.read_labels(part)[0][1:4, 2:, :], grid.affine.copy()
    affine[:3, 3] = grid.to_world([1, 2, 0])
    crop = type(grid)(cropped.shape, affine)
    out = io.write_labels(tmp_path / "m.dcm", cropped, crop, source=series)
    expected = np.zeros(grid.shape, int)
    expected[1:4, 2:] = cropped
    np.testing.assert_array_equal(io.read_labels(out)[0], expected)
    affine[:3, 3] += 0.3
    with pytest.raises(GeometryError, match="do not coincide"):
        io.write_labels(out, cropped, type(grid)(cropped.shape, affine), source=series)


def test_what_cannot_be_written_is_refused(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    ones, out = np.ones(grid.shape, int), tmp_path / "m.dcm"
    with pytest.raises(FileError, match="refers to the DICOM series of its image"):
        io.write_labels(out, ones, grid)
    with pytest.raises(FileError, match="no such file"):
        io.write_labels(out, ones, grid, source=tmp_path / "none")
    nifti = io.write_labels(tmp_path / "m.nii.gz", ones, grid)
    with pytest.raises(FileError, match="no DICOM series"):
        io.write_labels(out, ones, grid, source=nifti)
    with pytest.raises(LabelError, match="no negative labels"):
        io.write_labels(out, -ones, grid, source=series)
    with pytest.raises(LabelError, match="not integers"):
        io.write_labels(out, ones / 2, grid, source=series)
    for name in ("m.dcm", "m.rtstruct.dcm"):
        with pytest.raises(LabelError, match="empty"):
            io.write_labels(tmp_path / name, 0 * ones, grid, source=series)
    first = sorted(series.iterdir())[0]
    copy = first.rename(first.with_name("a.dcm"))
    before = copy.read_bytes()
    with pytest.raises(FileError, match="is a slice of the series"):
        io.write_labels(copy, ones, grid, source=series)
    assert copy.read_bytes() == before
    assert not out.exists()
    with pytest.raises(LabelError, match="up to 2,147,483,647"):
        io.write_labels(tmp_path / "m.rtstruct.dcm", ones * 2**31, grid, source=series)
    unplaced = write_series(tmp_path / "no")
    with pytest.raises(FileError, match="no FrameOfReferenceUID"):
        io.write_labels(out, ones, grid, source=unplaced)
    seg = io.write_labels(out, ones, grid, source=series)
    with pytest.raises(FileError, match="give the image series"):
        io.write_labels(tmp_path / "n.dcm", ones, grid, source=seg)
    with pytest.warns(UserWarning, match="is cut to the 64 characters"):
        io.write_labels(out, ones, grid, {1: "x" * 70}, source=series)


def test_the_series_may_have_masks_beside_it(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    for k in range(2):
        io.write_labels(series / f"{k}.dcm", np.ones(grid.shape, int), grid, source=series)
    assert len(list(series.iterdir())) == 8


def test_empty_segments_keep_their_names(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    labels = np.ones(grid.shape, int)
    out = io.write_labels(tmp_path / "m.dcm", labels, grid, {1: "a", 2: "b"}, source=series)
    assert io.read_label_names(out) == {1: "a", 2: "b"}
    np.testing.assert_array_equal(io.read_labels(out)[0], labels)


def test_segments_of_several_files(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    ones = np.ones(grid.shape, int)
    seg = io.write_labels(tmp_path / "m.dcm", ones, grid, {1: "liver"}, source=series)
    plain = io.write_labels(tmp_path / "m.nii.gz", ones, grid)
    assert segments_by_file(["liver"], seg, plain, None) == {str(seg): ("liver",), str(plain): ()}
    assert segments_by_file(None, seg) == {str(seg): ()}
    with pytest.raises(ParameterError, match="have segments to choose from"):
        segments_by_file(["liver"], plain)


def test_convert(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    mask = tmp_path / "m.nii.gz"
    io.write_labels(mask, random_labels(grid.shape, (0, 3, 9)), grid, {3: "liver", 9: "spleen"})
    source = mask
    for step in ("a.dcm", "b.rtstruct.dcm", "c.seg.nrrd", "d.dcm", "e.nii.gz"):
        out = tmp_path / step
        run("convert", source, out, "--like", series)
        np.testing.assert_array_equal(io.read_labels(out)[0], io.read_labels(mask)[0])
        assert io.read_label_names(out) == {3: "liver", 9: "spleen"}
        source = out
    one = tmp_path / "one.nii.gz"
    run("convert", tmp_path / "a.dcm", one, "--segment", "spleen")
    assert np.unique(io.read_labels(one)[0]).tolist() == [0, 9]
    assert "--like" in run("convert", mask, tmp_path / "x.dcm", status=2)
    refused = run("convert", mask, tmp_path / "x.dcm", "--like", series, "--as-image", status=2)
    assert "--as-image" in refused
    assert "spleen" in run("info", tmp_path / "b.rtstruct.dcm")


def test_evaluate_and_mesh_one_segment(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    labels = np.zeros(grid.shape, int)
    labels[1:3, 1:4, 1:4], labels[4, 1:3, 1:3] = 1, 2
    seg = io.write_labels(tmp_path / "m.dcm", labels, grid, {1: "liver", 2: "x"}, source=series)
    truth = io.write_labels(tmp_path / "t.nii.gz", np.where(labels == 1, 1, 0), grid)
    report = tmp_path / "r.json"
    run("evaluate", seg, truth, "--segment", "liver", "--json", report)
    assert list(json.loads(report.read_text())["labels"]) == ["1"]
    run("mesh", seg, "-o", tmp_path / "m.ply", "--segment", "x", "--json", report)
    assert list(json.loads(report.read_text())["labels"]) == ["2"]
    refused = run("mesh", truth, "-o", tmp_path / "m.ply", "--segment", "x", status=1)
    assert "have segments to choose from" in " ".join(refused.split())


def test_segment_writes_on_the_series(tmp_path):
    series = SERIES["axial"](tmp_path / "ct")
    grid = io.read_volume(series).grid
    labels = np.zeros(grid.shape, int)
    labels[2, 1:3, 1:3], labels[2, 0, 4:] = 1, 2
    prompts = io.write_labels(tmp_path / "p.dcm", labels, grid, {1: "in", 2: "out"}, source=series)
    out = tmp_path / "m.dcm"
    run("segment", series, "--prompts", prompts, "--background-label", 2, "-o", out, "-q")
    assert io.read_label_names(out) == {1: "in"}
    assert io.read_labels(out)[1].matches(grid)
    nifti = tmp_path / "scan.nii.gz"
    run("convert", series, nifti, "-q")
    refused = run("segment", nifti, "--prompts", prompts, "-o", out, status=1)
    assert "no DICOM series" in " ".join(refused.split())


@pytest.mark.parametrize("suffix", [".dcm", ".rtstruct.dcm"])
def test_image_and_mask_in_one_folder(tmp_path, suffix):
    series = write_series(tmp_path / "ct", **FRAME)
    image = io.read_volume(series)
    labels = random_labels(image.shape)
    io.write_labels(series / f"mask{suffix}", labels, image.grid, source=series)
    np.testing.assert_array_equal(io.read_volume(series).data, image.data)
    np.testing.assert_array_equal(io.read_labels(series, image.grid)[0], labels)
    io.write_labels(series / f"more{suffix}", labels, image.grid, source=series)
    with pytest.raises(LabelError, match=f"2 DICOM masks.* of mask{suffix}, more{suffix}"):
        io.read_labels(series, image.grid)


@pytest.mark.parametrize("suffix", [".dcm", ".rtstruct.dcm"])
def test_no_voxel_on_the_series(tmp_path, suffix):
    series = write_series(tmp_path / "ct", **FRAME)
    grid = io.read_volume(series).grid
    labels = np.zeros(grid.shape, np.uint8)
    labels[3:] = 1
    part = write_series(tmp_path / "part", count=2, **FRAME)
    with (
        pytest.warns(UserWarning, match="lie outside the image"),
        pytest.raises(LabelError, match="no labeled voxel lies on the slices"),
    ):
        io.write_labels(tmp_path / f"m{suffix}", labels, grid, source=part)
    assert not (tmp_path / f"m{suffix}").exists()


def test_convert_resamples_a_mask_where_asked(tmp_path):
    series = write_series(tmp_path / "ct", **FRAME)
    grid = io.read_volume(series).grid
    labels = np.zeros((6, 10, 14), np.uint8)
    labels[1:4, 2:8, 4:10] = 5
    fine = grid.with_spacing((2.0, 0.35, 0.3))
    io.write_labels(tmp_path / "fine.nii.gz", labels, fine)
    for name in ("m.dcm", "m.nii.gz"):
        words = ["convert", tmp_path / "fine.nii.gz", tmp_path / name, "--like", series]
        assert "--resample" in run(*words, status=1)
        run(*words, "--resample")
        found, _ = io.read_labels(tmp_path / name, grid)
        np.testing.assert_array_equal(found, io.read_labels(tmp_path / "fine.nii.gz", grid,
                                                            resample=True)[0])  # fmt: skip
        assert found.any()
    run("convert", tmp_path / "fine.nii.gz", tmp_path / "o.nii.gz", "--resample", status=2)
