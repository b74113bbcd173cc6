"""``napari-medgs tissues``."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli import app
from tests.tissue.conftest import agreement, three_classes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An image whose stored axes are none of the canonical ones, its field and a region."""
    folder = tmp_path_factory.mktemp("tissues")
    affine = np.array([[0, 0, 1.0, 5], [0, -1.0, 0, 7], [3.0, 0, 0, 9], [0, 0, 0, 1]])
    image, truth = three_classes(noise=8)
    nib.save(nib.Nifti1Image(image, affine), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image((truth > 1).astype(np.uint8), affine), folder / "region.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros_like(truth), affine), folder / "nothing.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), affine), folder / "other.nii.gz")
    volume = mg.read_volume(folder / "scan.nii.gz")
    mg.save_field(
        folder / "scan.medgs.safetensors", mg.fit(volume, mg.FitParams(interpolate=False)).field
    )
    return folder


def run(place, line: str):
    words = [str(place / w) if "." in w and not w[0].isdigit() else w for w in line.split()]
    return CliRunner().invoke(app, words)


def test_everything_is_written(place, truth):
    done = run(place, "tissues scan.nii.gz --field scan.medgs.safetensors -o t.nii.gz --classes 3 "
                      "--bias --probabilities p.nii.gz --uncertainty u.nii.gz "
                      "--corrected c.nii.gz --json t.json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 classes" in done.output
    stored, source = nib.load(place / "t.nii.gz"), nib.load(place / "scan.nii.gz")
    assert np.allclose(stored.affine, source.affine)
    labels = np.asarray(stored.dataobj)
    assert agreement(labels, truth) > 0.95
    p = nib.load(place / "p.nii.gz").get_fdata()
    assert p.shape == (*truth.shape, 3)
    inside = labels > 0
    assert np.allclose(p[inside].sum(axis=-1), 1, atol=1e-4)
    assert np.array_equal(p[inside].argmax(axis=-1) + 1, labels[inside])
    u = nib.load(place / "u.nii.gz").get_fdata()
    assert 0 <= u.min() <= u.max() <= 1
    c = nib.load(place / "c.nii.gz").get_fdata()
    numbers = json.loads((place / "t.json").read_text())
    low, high = numbers["bias_range"]
    factor = source.get_fdata()[inside] / c[inside]
    assert low - 1e-3 <= factor.min() <= factor.max() <= high + 1e-3
    assert numbers["classes"] == 3
    assert [row["voxels"] for row in numbers["table"]] == [(labels == k).sum() for k in (1, 2, 3)]
    assert numbers["output"].endswith("t.nii.gz")


def test_a_region_and_a_field_alone(place, truth):
    line = "tissues scan.medgs.safetensors -o r.nii.gz --classes 2 --region region.nii.gz -q"
    assert run(place, line).exit_code == 0
    labels = np.asarray(nib.load(place / "r.nii.gz").dataobj)
    assert np.array_equal(labels > 0, truth > 1)


def test_a_region_of_another_grid_is_resampled_on_request(place, truth):
    region = nib.load(place / "region.nii.gz")
    affine = region.affine @ np.diag([2, 2, 2, 1])
    coarse = nib.Nifti1Image(np.asarray(region.dataobj)[::2, ::2, ::2], affine)
    nib.save(coarse, place / "coarse.nii.gz")
    line = "tissues scan.medgs.safetensors -o o.nii.gz --classes 2 --region coarse.nii.gz -q"
    refused = run(place, line)
    assert refused.exit_code == 1
    assert "--resample" in refused.output
    assert run(place, f"{line} --resample").exit_code == 0
    found = np.asarray(nib.load(place / "o.nii.gz").dataobj)
    assert ((found > 0) == (truth > 1)).mean() > 0.9


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("scan.nii.gz -o t.nii.gz --classes 1", "greater than or equal to 2"),
        ("scan.nii.gz -o t.nii.gz --region nothing.nii.gz", "the region is empty"),
        ("scan.nii.gz -o t.nii.gz --region other.nii.gz", "other.nii.gz"),
        ("scan.nii.gz -o t.nii.gz --corrected c.nii.gz", "--corrected needs --bias"),
        ("scan.nii.gz -o scan.nii.gz", "would overwrite the input"),
        ("scan.nii.gz -o t.png", "must end in"),
        ("missing.nii.gz -o t.nii.gz", "missing.nii.gz"),
        ("scan.medgs.safetensors scan.nii.gz -o t.nii.gz", "one field alone"),
    ],
)
def test_bad_input_is_one_line(place, words, part):
    done = run(place, f"tissues {words}")
    assert done.exit_code in (1, 2)
    assert part in " ".join(done.output.replace("│", " ").split())
    assert "This is a bug" not in done.output
