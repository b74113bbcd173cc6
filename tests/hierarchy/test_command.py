"""``napari-medgs parts``."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli import app
from napari_medgs.io import read_labels
from tests.hierarchy.conftest import blocks


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An image whose stored axes are none of the canonical ones, and its field with the tree."""
    folder = tmp_path_factory.mktemp("parts")
    affine = np.array([[0, 0, 1.0, 5], [0, -1.0, 0, 7], [2.0, 0, 0, 9], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(blocks()[0].astype(np.int16), affine), folder / "scan.nii.gz")
    volume = mg.read_volume(folder / "scan.nii.gz")
    field = mg.fit(volume, mg.FitParams(iterations=40)).field
    mg.save_field(folder / "scan.medgs.safetensors", field)
    return folder


def run(place, line: str, **kwargs):
    words = [str(place / w) if "." in w and not w[0].isdigit() else w for w in line.split()]
    return CliRunner().invoke(app, words, **kwargs)


# Block 3 of the array (8, 32, 36); its axes are stored as x, y, z of the file.
AT = "26 18 4"  # z y x of the stored file


def test_a_part_at_a_place(place, truth):
    done = run(place, f"parts scan.nii.gz --field scan.medgs.safetensors -o a.nii.gz --at {AT} "
                      "--json a.json")  # fmt: skip
    assert done.exit_code == 0, done.output
    mask = np.asarray(nib.load(place / "a.nii.gz").dataobj)
    source = nib.load(place / "scan.nii.gz")
    assert mask.shape == truth.shape
    assert np.allclose(nib.load(place / "a.nii.gz").affine, source.affine)
    assert mask[4, 18, 26] == 1
    assert set(np.unique(mask)) == {0, 1}
    numbers = json.loads((place / "a.json").read_text())
    assert numbers["voxels"] == mask.sum()
    assert numbers["volume_ml"] == pytest.approx(mask.sum() * 0.002)
    assert len(numbers["levels_ml"]) > numbers["level"] >= 0
    best = 0.0
    for level in range(len(numbers["levels_ml"])):
        line = (
            "parts scan.nii.gz --field scan.medgs.safetensors -o n.nii.gz "
            f"--at {AT} --level {level} -q"
        )
        assert run(place, line).exit_code == 0
        mask = np.asarray(nib.load(place / "n.nii.gz").dataobj) == 1
        best = max(best, 2 * (mask & (truth == 3)).sum() / (mask.sum() + (truth == 3).sum()))
    assert best > 0.9


def test_millimeters_and_negative_places(place):
    affine = nib.load(place / "scan.nii.gz").affine
    world = " ".join(f"{v:g}" for v in (affine @ [4, 18, 26, 1])[:3])
    assert run(place, f"parts scan.medgs.safetensors -o b.nii.gz --at {AT}").exit_code == 0
    line = f"parts scan.medgs.safetensors -o c.nii.gz --world --at {world}"
    assert run(place, line).exit_code == 0
    first, second = (nib.load(place / f"{n}.nii.gz").get_fdata() for n in "bc")
    assert np.array_equal(first, second)
    line = f"parts scan.medgs.safetensors -o d.nii.gz --at {AT} --not-at 8 8 4"
    assert run(place, line).exit_code == 0
    mask = nib.load(place / "d.nii.gz").get_fdata()
    assert mask[4, 18, 26] == 1
    assert mask[4, 8, 8] == 0


def test_a_cut_and_the_tree(place):
    line = (
        "parts scan.nii.gz --field scan.medgs.safetensors -o cut.nii.gz --count 5 "
        "--tree tree.json --store stored.medgs.safetensors --json cut.json"
    )
    done = run(place, line)
    assert done.exit_code == 0, done.output
    labels, _ = read_labels(place / "cut.nii.gz")
    assert sorted(np.unique(labels)) == [1, 2, 3, 4, 5]
    numbers = json.loads((place / "cut.json").read_text())
    total = sum(part["volume_ml"] for part in numbers["parts"])
    assert total == pytest.approx(labels.size * 0.002)
    tree = json.loads((place / "tree.json").read_text())
    assert tree["leaves"] == numbers["leaves"] == len(tree["children"]) + 1
    # The stored tree is read, not made anew: it is the image's, not that of the rendered field.
    line = "parts stored.medgs.safetensors --tree again.json"
    assert run(place, line).exit_code == 0
    assert json.loads((place / "again.json").read_text()) == tree


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-o x.nii.gz", "-o needs --count K or --at Z Y X"),
        ("--count 4", "give -o"),
        ("", "give -o with --count"),
        ("-o x.nii.gz --count 4 --at 1 1 1", "either --count or --at"),
        ("-o x.nii.gz --not-at 1 1 1", "--not-at needs --at"),
        ("-o x.nii.gz --count 4 --level 1", "--level is for --at"),
        ("-o x.nii.gz --count 4 --world", "--world is for --at"),
        ("-o x.nii.gz --count 1", "Error"),
        ("-o x.nii.gz --at 1 2", "2 numbers where 3 are needed"),
        ("-o x.nii.gz --at 26 18 4 --level 99", "has sizes 0 to"),
        ("-o x.nii.gz --count 4 --field scan.medgs.safetensors", "one field alone"),
    ],
)
def test_wrong_usage(place, words, message):
    done = run(place, f"parts scan.medgs.safetensors {words}", env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert message in " ".join(done.output.split()), done.output
    assert not (place / "x.nii.gz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-o x.nii.gz --at 99 1 1", "--at 99 1 1: lies outside of"),
        ("-o x.nii.gz --count 99999999", "fewer than the 99,999,999 parts"),
        ("-o x.txt --count 3", "must end in"),
        ("-o scan.medgs.safetensors --count 3", "would overwrite the input"),
        ("--tree tree.txt", "must end in .json"),
        ("-o x.dcm --count 3", "DICOM"),
        ("--store scan.medgs.safetensors", "would overwrite the input"),
        ("-o x.nii.gz --at 26 18 4 --not-at 26 18 4", "in the same cell"),
    ],
)
def test_failures_are_one_line(place, words, message):
    done = run(place, f"parts scan.medgs.safetensors {words}")
    assert done.exit_code == 1
    assert message in done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (place / "x.nii.gz").exists()


def test_a_place_outside_is_refused_before_anything_is_fitted(place, monkeypatch):
    monkeypatch.setattr("napari_medgs.fitting.fit", None)
    done = run(place, "parts scan.nii.gz -o x.nii.gz --at 99 1 1")
    assert done.exit_code == 1
    assert "--at 99 1 1: lies outside of" in done.output
    assert len(done.stderr.strip().splitlines()) == 1
