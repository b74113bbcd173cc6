"""info prints the file's own order of axes, in which places are given."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.data.volume import Volume
from napari_medgs.io import write_frames

SHAPE = (5, 7, 9)
WORDS = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior",
         "I": "inferior"}  # fmt: skip


def info(path, *more) -> tuple[dict, str]:
    numbers = path.parent / "numbers.json"
    result = CliRunner().invoke(app, ["info", str(path), "--json", str(numbers), *more])
    assert result.exit_code == 0, result.output
    return json.loads(numbers.read_text()), result.stdout


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "SAL", "AIR", "IRP"])
def test_sizes_and_directions_are_those_of_the_file(tmp_path, rng, codes):
    data = rng.normal(100, 9, SHAPE).astype(np.float32)
    affine = np.eye(4)
    for axis, (code, step) in enumerate(zip(codes, (0.7, 1.1, 2.5))):
        affine[:3, axis] = np.roll(
            (step if code in "RAS" else -step, 0, 0), "RLAPSI".index(code) // 2
        )
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, 4)
    image.set_qform(affine, 1)
    nibabel.save(image, tmp_path / "t.nii")
    found, text = info(tmp_path / "t.nii")
    assert found["file_orientation"] == codes == "".join(nibabel.aff2axcodes(affine))
    assert found["stored_shape"] == list(SHAPE[::-1])
    zooms = nibabel.load(tmp_path / "t.nii").header.get_zooms()
    assert found["stored_spacing_mm"] == pytest.approx(zooms[::-1])
    assert found["stored_axes"] == dict(zip("xyz", (WORDS[c] for c in codes)))
    corners = [(i, j, k) for i in (-0.5, 4.5) for j in (-0.5, 6.5) for k in (-0.5, 8.5)]
    world = nibabel.affines.apply_affine(affine, corners)
    spans = zip(world.min(axis=0), world.max(axis=0))
    for axis, (low, high) in zip("RAS", spans):
        assert found["world_mm"][axis] == pytest.approx([low, high])
        assert f"{axis} {low:.5g} to {high:.5g}" in text
    assert "9 x 7 x 5 voxels" in text
    assert codes in text
    assert "4 (MNI 152)" in text
    assert "1 (scanner)" in text
    assert sorted(found["shape"]) == sorted(SHAPE)


def test_an_oblique_image_says_about(tmp_path, rng):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.2
    nibabel.save(nibabel.Nifti1Image(rng.normal(size=SHAPE), affine), tmp_path / "t.nii")
    found, text = info(tmp_path / "t.nii")
    assert found["stored_axes"] == {"z": "superior", "y": "about anterior", "x": "right"}
    assert "about anterior" in text


def test_files_of_itk_and_frames(tmp_path, rng):
    data = rng.integers(0, 200, SHAPE).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(data), str(tmp_path / "t.nrrd"))
    found, text = info(tmp_path / "t.nrrd")
    assert found["stored_shape"] == list(SHAPE)
    assert found["stored_axes"] == {"z": "superior", "y": "posterior", "x": "left"}
    assert "sform" not in text
    write_frames(tmp_path / "frames", data, Volume.from_array(data, (3.0, 1.0, 1.0)).grid)
    found, text = info(tmp_path / "frames", "--spacing", "3", "1", "1")
    assert found["stored_shape"] == list(SHAPE)
    assert found["stored_axes"] == {}  # frames do not say how they lie
    assert "axes run to" not in text
    assert "world_mm" not in found
