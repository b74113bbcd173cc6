"""Statistics of labels, against SimpleITK, scikit-image and the definition."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.distance import pdist
from skimage.measure import label as skimage_label
from skimage.measure import regionprops
from typer.testing import CliRunner

from napari_medgs.cli.app import app
from napari_medgs.data.grid import Grid
from napari_medgs.errors import Cancelled, GeometryError
from napari_medgs.metrics import label_statistics
from napari_medgs.metrics.statistics_table import cell_text, table_rows, table_text

RUNNER = CliRunner()


def blobs(seed=0, shape=(9, 14, 16)):
    """Labels 1 and 2 of several pieces, and an image with noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) > 0.93).astype(np.uint8)
    labels[2:6, 3:9, 4:12] = 1
    labels[3:8, 10:13, 2:7] = 2
    return labels, rng.normal(40, 20, shape).astype(np.float32)


def face_middles(inside, affine):
    """The middles of all outer faces in mm, by looking at every voxel."""
    found = []
    padded = np.pad(inside, 1)
    for z, y, x in np.argwhere(inside):
        for axis in range(3):
            for step in (-1, 1):
                other = np.array([z, y, x]) + 1
                other[axis] += step
                if not padded[tuple(other)]:
                    middle = np.array([z, y, x], float)
                    middle[axis] += step / 2
                    found.append(middle)
    return np.array(found) @ affine[:3, :3].T


def test_intensities_and_counts_are_those_of_other_libraries():
    labels, image = blobs()
    spacing = (3.0, 0.5, 0.7)
    found = label_statistics(labels, Grid(labels.shape, np.diag([*spacing, 1.0])), image)
    itk = sitk.LabelIntensityStatisticsImageFilter()
    itk.Execute(sitk.GetImageFromArray(labels), sitk.GetImageFromArray(image))
    assert list(found) == [1, 2]
    for value, entry in found.items():
        assert entry.voxels == (labels == value).sum()
        assert entry.volume_ml == pytest.approx(entry.voxels * np.prod(spacing) / 1000)
        assert entry.mean == pytest.approx(itk.GetMean(value), rel=1e-6)
        assert entry.sd == pytest.approx(itk.GetStandardDeviation(value), rel=1e-5)
        assert (entry.minimum, entry.maximum) == (itk.GetMinimum(value), itk.GetMaximum(value))
        assert entry.components == skimage_label(labels == value, connectivity=1).max()


def test_the_longest_diameter_is_that_of_scikit_image():
    z, y, x = np.indices((24, 25, 26))
    inside = ((z - 11) / 10) ** 2 + ((y - 12) / 5) ** 2 + ((x - 12) / 7) ** 2 <= 1
    (entry,) = label_statistics(inside.astype(int), Grid(inside.shape)).values()
    (region,) = regionprops(inside.astype(int))
    # That of scikit-image is taken from the voxels of the convex hull.
    assert entry.longest_mm == pytest.approx(region.feret_diameter_max, rel=0.01)
    # The middle slice is an ellipse of 14 by 10 voxels.
    assert entry.axial_longest_mm == pytest.approx(15, abs=0.2)
    assert entry.axial_short_mm == pytest.approx(11, abs=0.3)


@pytest.mark.parametrize("seed", [1, 2])
def test_diameters_on_oblique_sheared_grids_follow_the_definition(seed):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    inside = rng.random((5, 7, 6)) > 0.7
    (entry,) = label_statistics(inside.astype(int), Grid(inside.shape, affine)).values()
    assert entry.longest_mm == pytest.approx(pdist(face_middles(inside, affine)).max())
    slices = []
    for plane in inside:
        faces = [
            np.array([0.0, *(np.array([y, x]) + step)])
            for y, x in np.argwhere(plane)
            for step in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))
        ]
        slices.append(pdist(np.array(faces) @ affine[:3, :3].T).max())
    assert entry.axial_longest_mm == pytest.approx(max(slices))
    assert 0 < entry.axial_short_mm <= entry.axial_longest_mm + 1e-9


def test_single_voxels_flat_images_and_missing_values():
    labels = np.zeros((3, 4, 5), int)
    labels[1, 2, 3] = 4
    image = np.full(labels.shape, np.nan)
    grid = Grid(labels.shape, np.diag([5.0, 2.0, 1.0, 1.0]))
    (entry,) = label_statistics(labels, grid, image).values()
    assert (entry.longest_mm, entry.axial_longest_mm, entry.axial_short_mm) == (5, 2, 1)
    assert (entry.mean, entry.sd, entry.maximum) == (None, None, None)
    image[1, 2, 3] = 7
    (entry,) = label_statistics(labels, grid, image).values()
    assert (entry.mean, entry.sd) == (7, None)
    flat = np.ones((1, 3, 4), int)
    (entry,) = label_statistics(flat, Grid(flat.shape, np.diag([9.0, 1, 1, 1]))).values()
    assert entry.longest_mm == entry.axial_longest_mm  # not the thickness of the slice
    assert label_statistics(labels, grid, values=[9]) == {}
    assert label_statistics(np.zeros_like(labels), grid) == {}


def test_wrong_shapes_are_refused_and_work_can_be_stopped():
    labels, image = blobs()
    grid = Grid(labels.shape)
    with pytest.raises(GeometryError, match="image has shape"):
        label_statistics(labels, grid, image[1:])
    with pytest.raises(GeometryError, match="labels have shape"):
        label_statistics(labels[1:], grid)
    with pytest.raises(Cancelled):
        label_statistics(labels, grid, should_stop=lambda: True)


def test_tables_hold_every_number_and_survive_awkward_names():
    labels, image = blobs()
    found = label_statistics(labels, Grid(labels.shape), image, areas_mm2={1: 12.5})
    name = 'cyst, "left"\nold'
    rows = table_rows(found, {1: name})
    for tabs, dialect in ((False, "excel"), (True, "excel-tab")):
        read = list(csv.DictReader(table_text(rows, tabs=tabs).splitlines(True), dialect=dialect))
        assert [row["name"] for row in read] == [name, "label 2"]
        assert float(read[0]["mean"]) == found[1].mean
        assert [row["surface_mm2"] for row in read] == ["12.5", ""]
    texts = [cell_text(v) for v in (None, 12345, 1234.5, 12.34, 1.234, 0.01234)]
    assert texts == ["-", "12,345", "1,234", "12.3", "1.23", "0.0123"]


@pytest.fixture
def files(tmp_path):
    """An image and a mask of two labels with names, as files."""
    labels, image = blobs()
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(labels.T, affine), tmp_path / "mask.nii.gz")
    nib.save(nib.Nifti1Image(image.T, affine), tmp_path / "scan.nii.gz")
    (tmp_path / "mask.json").write_text(json.dumps({"labels": {"1": "spleen"}}))
    return tmp_path


def test_the_command_prints_and_writes_the_numbers(files):
    labels, image = blobs()
    table, numbers = files / "numbers.csv", files / "numbers.json"
    command = ["measure", str(files / "mask.nii.gz"), "--image", str(files / "scan.nii.gz")]
    result = RUNNER.invoke(app, [*command, "--csv", str(table), "--json", str(numbers)])
    assert result.exit_code == 0, result.output
    assert "1 spleen" in result.output
    rows = list(csv.DictReader(table.open()))
    assert [row["name"] for row in rows] == ["spleen", "label 2"]
    assert float(rows[0]["mean"]) == pytest.approx(image[labels == 1].mean(), rel=1e-6)
    entry = json.loads(numbers.read_text())["labels"]["2"]
    assert entry["volume_ml"] == pytest.approx((labels == 2).sum() * 6 / 1000)
    assert entry["surface_mm2"] > 0
    result = RUNNER.invoke(app, ["measure", str(files / "mask.nii.gz"), "--no-surface"])
    assert result.exit_code == 0
    assert "Surface" not in result.output
    assert "Mean" not in result.output


def test_the_command_says_which_channel_it_measures(files):
    labels, image = blobs()
    two = nib.Nifti1Image(np.stack([image.T, 2 * image.T], -1), np.diag([2.0, 1.0, 3.0, 1.0]))
    nib.save(two, files / "two.nii.gz")
    said = []
    for name in ("scan.nii.gz", "two.nii.gz"):
        words = ["measure", str(files / "mask.nii.gz"), "--image", str(files / name)]
        result = RUNNER.invoke(app, [*words, "--no-surface", "--json", str(files / "m.json")])
        assert result.exit_code == 0, result.output
        mean = json.loads((files / "m.json").read_text())["labels"]["1"]["mean"]
        assert mean == pytest.approx(image[labels == 1].mean(), rel=1e-6)
        said.append(result.stderr)
    assert said[0] == ""
    assert "two.nii.gz: holds 2 channels; measured is the first one" in said[1]
    assert len(said[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mask.nii.gz", "--labels", "5"], "no voxel of label 5; there are 1, 2"),
        (["scan.nii.gz"], "scan.nii.gz"),
        (["empty.nii.gz"], "only background"),
        (["mask.nii.gz", "--image", "other.nii.gz"], "other.nii.gz"),
        (["mask.nii.gz", "--csv", "mask.nii.gz"], "must end in .csv"),
        (["mask.nii.gz", "--csv", "no-folder/x.csv"], "no-folder"),
    ],
)
def test_the_command_says_what_is_wrong(files, monkeypatch, arguments, says):
    monkeypatch.chdir(files)
    empty = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    nib.save(empty, "empty.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), "other.nii.gz")
    result = RUNNER.invoke(app, ["measure", *arguments], standalone_mode=False)
    text = result.output + str(result.exception)
    assert says in text
