"""evaluate: two masks and two folders of them, with a table of every score."""

from __future__ import annotations

import csv
import json
import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
from typer.testing import CliRunner

from napari_medgs import Grid, Volume, metrics
from napari_medgs.cli import app
from napari_medgs.cli.evaluate_cases import COLUMNS
from napari_medgs.io import read_labels, write_labels

AFFINE = np.diag([-1.0, -1.5, 2.0, 1.0])


def run(*words: object, status: int = 0):
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, f"{result.output}\n{result.stderr}\n{result.exception}"
    return result


def save(path, labels):
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), AFFINE), path)


def table(path, delimiter=","):
    with path.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened, delimiter=delimiter)
        assert tuple(reader.fieldnames) == COLUMNS
        return list(reader)


@pytest.fixture
def cohort(tmp_path):
    """Folders with four common cases, one of them empty, and one file alone on each side."""
    seg, truth = tmp_path / "seg", tmp_path / "truth"
    seg.mkdir()
    truth.mkdir()
    mask = np.zeros((9, 10, 8), int)
    mask[2:6, 2:6, 2:6], mask[7, 7, 6:8] = 1, 2
    moved = np.roll(mask, 1, axis=0)
    for name, ours, theirs in (
        ("a", mask, mask),
        ("b", moved, mask),
        ("c", moved * (moved == 1), mask),
        ("empty", 0 * mask, 0 * mask),
    ):
        save(seg / f"{name}.nii.gz", ours)
        save(truth / f"{name}.nii.gz", theirs)
    save(seg / "only_seg.nii.gz", mask)
    save(truth / "only_truth.nii.gz", mask)
    (truth / "dataset.json").write_text("{}")
    (truth / ".hidden.nii.gz").write_bytes(b"no image")
    return seg, truth


def test_folders_are_paired_by_name_and_averaged(cohort, tmp_path):
    seg, truth = cohort
    numbers = tmp_path / "n.json"
    result = run("evaluate", seg, truth, "--json", numbers, "--tolerance", 0.5)
    found = json.loads(numbers.read_text())
    assert list(found["cases"]) == ["a", "b", "c", "empty"]
    for case in "abc":
        ours, grid = read_labels(seg / f"{case}.nii.gz")
        theirs, _ = read_labels(truth / f"{case}.nii.gz")
        assert found["cases"][case] == metrics.evaluate(ours, theirs, grid, tolerance=0.5)
    assert found["cases"]["empty"]["labels"] == {}
    two = found["labels"]["2"]
    dice = [found["cases"][case]["labels"]["2"]["dice"] for case in "abc"]
    assert two["dice"] == pytest.approx(np.mean(dice))
    assert (two["cases"], two["missing"], two["without_distance"]) == (3, 1, 1)
    assert found["tolerance_mm"] == 0.5
    assert found["unmatched"]["without_segmentation"] == [str(truth / "only_truth.nii.gz")]
    assert found["unmatched"]["without_truth"] == [str(seg / "only_seg.nii.gz")]
    assert "only_truth.nii.gz" in result.stderr
    assert "only_seg.nii.gz" in result.stderr
    assert "means over 4 of 4 cases" in " ".join(result.stdout.split())
    assert "3 cases, 1 missing in the segmentation" in result.stdout
    assert "within 0.5 mm" in result.stdout
    assert "left out of the mean HD95" in result.stdout
    assert "hidden" not in result.output


@pytest.mark.parametrize(("name", "delimiter"), [("s.csv", ","), ("s.TSV", "\t")])
def test_the_table_has_every_label_and_the_means(cohort, tmp_path, name, delimiter):
    seg, truth = cohort
    numbers = tmp_path / "n.json"
    run("evaluate", seg, truth, "--csv", tmp_path / name, "--json", numbers)
    found = json.loads(numbers.read_text())
    rows = {(row["case"], row["label"]): row for row in table(tmp_path / name, delimiter)}
    assert len(rows) == 3 * 2 + 2 + 1
    for case in "abc":
        for label in "12":
            entry, row = found["cases"][case]["labels"][label], rows[case, label]
            for key, column in {"dice": "dice", "nsd": "nsd", "hd95": "hd95_mm"}.items():
                value = float(row[column]) if row[column] else None
                assert value == entry[key]
    assert rows["c", "2"]["note"] == "missing in the segmentation"
    assert rows["c", "2"]["hd95_mm"] == ""
    assert float(rows["mean", "mean"]["dice"]) == found["mean"]["dice"]
    assert float(rows["mean", "1"]["nsd"]) == found["labels"]["1"]["nsd"]
    assert not [p.name for p in tmp_path.iterdir() if ".tmp" in p.name]


def test_formats_may_differ(cohort, tmp_path):
    seg, truth = cohort
    for path in list(seg.iterdir()):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image, str(path).replace(".nii.gz", ".nrrd"))
        path.unlink()
    numbers = tmp_path / "n.json"
    run("evaluate", seg, truth, "--json", numbers)
    found = json.loads(numbers.read_text())
    assert found["cases"]["a"]["mean"]["dice"] == 1
    assert len(found["cases"]) == 4


@pytest.fixture
def pictures(tmp_path, rng):
    """Two masks of five slices, as pages of a TIFF file, as PNG frames and one slice of each."""
    masks = [(rng.random((5, 12, 9)) < share).astype(np.uint8) for share in (0.4, 0.6)]
    for name, mask in zip("ab", masks, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", mask)
        (tmp_path / name).mkdir()
        for k, plane in enumerate(mask):
            Image.fromarray(plane).save(tmp_path / name / f"{k}.png")
        Image.fromarray(mask[2]).save(tmp_path / f"{name}.png")
    return tmp_path, masks


@pytest.mark.parametrize("form", ["{}.tif", "{}", "{}.png"])
def test_masks_without_a_voxel_size(pictures, form):
    folder, (ours, theirs) = pictures
    if form.endswith("png"):
        ours, theirs = ours[2:3], theirs[2:3]
    words = ["evaluate", folder / form.format("a"), folder / form.format("b")]
    refused = run(*words, status=1)
    assert "--spacing Z Y X" in refused.stderr
    numbers = folder / "n.json"
    run(*words, "--spacing", 3, 0.5, 0.8, "--json", numbers)
    grid = Volume.from_array(ours, (3, 0.5, 0.8)).grid
    assert (
        json.loads(numbers.read_text())["labels"] == metrics.evaluate(ours, theirs, grid)["labels"]
    )
    # A file that states its voxel size is not overruled.
    write_labels(folder / "b.nii.gz", theirs, Volume.from_array(theirs, (2, 1.5, 1)).grid)
    words = ["evaluate", folder / form.format("a"), folder / "b.nii.gz", "--spacing"]
    assert "contradicts" in run(*words, 3, 0.5, 0.8, status=1).stderr
    run(*words, 2, 1.5, 1)


def test_folders_of_masks_without_a_voxel_size(pictures):
    folder, (ours, theirs) = pictures
    for name in "ab":
        place = folder / f"of_{name}"
        place.mkdir()
        (folder / f"{name}.tif").rename(place / "case.tif")
    words = ["evaluate", folder / "of_a", folder / "of_b", "--json", folder / "n.json"]
    assert "--spacing Z Y X" in run(*words, status=1).stderr
    run(*words, "--spacing", 3, 0.5, 0.8)
    found = json.loads((folder / "n.json").read_text())["cases"]
    grid = Volume.from_array(ours, (3, 0.5, 0.8)).grid
    assert found == {"case": json.loads(json.dumps(metrics.evaluate(ours, theirs, grid)))}


def test_measures_of_a_mask_without_a_voxel_size(pictures):
    folder, (ours, theirs) = pictures
    words = ["measure", folder / "a.tif", "--image", folder / "b.tif", "--json", folder / "n.json"]
    assert "--spacing Z Y X" in run(*words, status=1).stderr
    run(*words, "--spacing", 3, 0.5, 0.8)
    found = json.loads((folder / "n.json").read_text())["labels"]["1"]
    assert found["volume_ml"] == pytest.approx(ours.sum() * 3 * 0.5 * 0.8 / 1000)
    assert found["mean"] == pytest.approx(theirs[ours > 0].mean())


def test_a_case_that_cannot_be_scored_does_not_stop_the_others(cohort, tmp_path):
    seg, truth = cohort
    finer = np.diag([0.3, 0.3, 0.3, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), finer), seg / "b.nii.gz")
    (seg / "c.nii.gz").write_bytes(b"these are words")
    result = run("evaluate", seg, truth, "--json", tmp_path / "n.json", status=1)
    found = json.loads((tmp_path / "n.json").read_text())
    assert set(found["failed"]) == {"b", "c"}
    assert set(found["cases"]) == {"a", "empty"}
    assert "2 of 4 cases could not be scored" in result.stderr
    assert "b.nii.gz" in result.stderr
    assert "c.nii.gz" in result.stderr
    assert "Traceback" not in result.output


def test_folders_that_cannot_be_paired(cohort, tmp_path):
    seg, truth = cohort
    lone = tmp_path / "lone"
    lone.mkdir()
    save(lone / "z.nii.gz", np.ones((3, 3, 3)))
    text = run("evaluate", lone, truth, status=1).stderr
    assert "no mask has the name of one in" in text
    text = run("evaluate", lone / "z.nii.gz", truth, status=1).stderr
    assert "give two files or two folders" in text
    save(seg / "a.nii", np.ones((3, 3, 3)))
    text = run("evaluate", seg, truth, status=1).stderr
    assert "the case a has two files" in text
    assert len(text.splitlines()) == 1


def test_two_masks_with_a_table(cohort, tmp_path):
    seg, truth = cohort
    out = tmp_path / "one.csv"
    result = run("evaluate", seg / "c.nii.gz", truth / "c.nii.gz", "--csv", out)
    assert "missing in the segmentation" in result.stdout
    assert "NSD: surfaces within 1 mm agree" in result.stdout
    assert "1 score has no distance" in result.stdout
    rows = table(out)
    assert [(r["case"], r["label"]) for r in rows] == [
        ("c", "1"), ("c", "2"), ("mean", "1"), ("mean", "2"), ("mean", "mean")
    ]  # fmt: skip
    assert {r["tolerance_mm"] for r in rows} == {"1.0"}
    ratio = re.search(r"^ *1 .*", result.stdout, re.MULTILINE)
    assert ratio is not None
    assert "1.000" in ratio[0]


def test_names_of_labels_are_in_the_table(tmp_path, tiny_labels, tiny_grid):
    write_labels(tmp_path / "m.nii.gz", tiny_labels, tiny_grid, {1: "lung, left", 2: "лёгкое"})
    run("evaluate", tmp_path / "m.nii.gz", tmp_path / "m.nii.gz", "--csv", tmp_path / "t.csv")
    assert {row["name"] for row in table(tmp_path / "t.csv")} == {"lung, left", "лёгкое", ""}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--csv", "t.txt"), "must end in .csv or .tsv"),
        (("--csv", "nowhere/t.csv"), "make it first"),
        (("--json", "t.csv", "--csv", "t.csv"), "are the same file"),
    ],
)
def test_tables_that_cannot_be_written(cohort, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert says in run("evaluate", *cohort, *words, status=1).stderr
    assert set(tmp_path.rglob("*")) == before


def test_a_negative_tolerance_is_wrong_usage(cohort):
    run("evaluate", *cohort, "--tolerance", -1, status=2)


def test_background_alone_is_refused_for_two_masks(cohort):
    seg, truth = cohort
    text = run("evaluate", seg / "empty.nii.gz", truth / "empty.nii.gz", status=1).stderr
    assert "there is no label to score" in text
    assert "empty.nii.gz" in text


def test_small_voxels_have_readable_numbers_and_a_warning(tmp_path):
    labels = np.zeros((6, 8, 8), np.uint8)
    labels[2:4, 2:5, 2:6] = 1
    moved = np.roll(labels, 1, 2)
    for name, mask in (("a", labels), ("b", moved)):
        image = nibabel.Nifti1Image(mask.T, np.diag([8e-6, 8e-6, 4e-5, 1]))
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
    result = run("evaluate", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    assert "tolerance of 1 mm is 25,000 voxels" in " ".join(result.output.split())
    assert result.stdout.count("6.14e-17") == 2  # 24 voxels of 8 x 8 x 40 nm in milliliters
    fine = run("evaluate", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "--tolerance", 4e-5)
    assert "tolerance of" not in fine.output
    surface = run("mesh", tmp_path / "a.nii.gz", "-o", tmp_path / "a.ply")
    assert "6.14e-17" in surface.output


def test_one_value_of_two_names(tmp_path):
    """Names that only number their label say nothing."""
    labels = np.zeros((4, 5, 6), int)
    labels[1:3, 1:3, 1:3], labels[3, 3:, 3:] = 1, 2
    files = [tmp_path / f"{k}.seg.nrrd" for k in range(3)]
    grid = Grid(labels.shape)
    for file, names in zip(files, ({1: "liver", 2: "Spleen"}, {1: "spleen", 2: "liver"}, {})):
        write_labels(file, labels, grid, names)
    told = " ".join(run("evaluate", files[1], files[0]).stderr.split())
    assert "The value 1 is 'spleen' in" in told
    assert "and 'liver' in" in told
    for first, second in ((0, 0), (2, 0), (0, 2)):
        assert "The value" not in run("evaluate", files[first], files[second]).stderr
