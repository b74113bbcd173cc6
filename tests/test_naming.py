"""Errors name the files that they speak of."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs._util.naming import named, naming
from napari_medgs.cli import app
from napari_medgs.errors import Cancelled, GeometryError, LabelError


@pytest.mark.parametrize(
    ("message", "files", "expected"),
    [
        ("The mask is empty.", {"image": "a.nii", "mask": "b.nii"}, "b.nii: the mask is empty."),
        ("The prompts mark nothing.", {"image": ["a.nii"], "prompts": "s.nii", "field": None},
         "s.nii: the prompts mark nothing."),
        ("The initial mask is odd.", {"mask": "m.nii", "initial": "i.nii"},
         "i.nii: the initial mask is odd."),
        ("PSNR cannot be reached.", {"image": "a.nii"}, "PSNR cannot be reached."),
        ("d/a.nii: the image is empty.", {"image": "d/a.nii"}, "d/a.nii: the image is empty."),
        ("'the image' and 'm.nii' differ.", {"image": "d/a.nii"}, "'a.nii' and 'm.nii' differ."),
        ("'a' and 'b' lie apart.", {"image": ["d/a.nii.gz", "d/b.mha"]},
         "'a.nii.gz' and 'b.mha' lie apart."),
        ("The image is constant.", {"image": [f"{k}.nii" for k in range(6)]},
         "0.nii, 1.nii, 2.nii, 3.nii, and 2 more: the image is constant."),
        ("The fit needs 9 GiB and 2 GiB are free.", {"image": "a.nii", "mask": "m.nii"},
         "a.nii: the fit needs 9 GiB and 2 GiB are free."),
        ("RAS is fine for the image.", {"image": "a.nii"}, "a.nii: RAS is fine for the image."),
    ],
)  # fmt: skip
def test_files_stand_before_what_is_said_of_them(message, files, expected):
    assert named(message, **files) == expected


def test_the_class_and_cause_of_an_error_stay():
    with (
        pytest.raises(LabelError, match=r"^b\.nii: the mask is empty") as caught,
        naming(mask="b.nii"),
    ):
        raise LabelError("The mask is empty.") from ValueError("why")
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(Cancelled, match=r"^The image"), naming(image="a.nii"):
        raise Cancelled("The image was canceled.")
    with pytest.raises(ZeroDivisionError), naming(image="a.nii"):
        raise ZeroDivisionError("the image")


AFFINE = np.diag([1, 1, 3, 1.0])
IMAGE = np.random.default_rng(0).normal(100, 20, (12, 11, 10)).astype(np.float32)


@pytest.fixture
def place(tmp_path):
    def save(name, data, affine=AFFINE):
        nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / name)

    mask = np.zeros(IMAGE.shape, np.uint8)
    mask[3:8, 3:8, 3:8] = 1
    save("image.nii.gz", IMAGE)
    save("flat.nii.gz", np.full_like(IMAGE, 7))
    save("mask.nii.gz", mask)
    save("empty.nii.gz", 0 * mask)
    save("far.nii.gz", mask, np.diag([2.1, 2.3, 3, 1.0]))
    save("turned.nii.gz", IMAGE, np.diag([2.1, 2.3, 3, 1.0]))
    save("one.nii.gz", mask * np.uint8(3))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("fit flat.nii.gz -o o.medgs.safetensors", ["flat.nii.gz"]),
        ("fit image.nii.gz flat.nii.gz -o o.medgs.safetensors", ["flat.nii.gz"]),
        ("fit image.nii.gz turned.nii.gz -o o.medgs.safetensors", ["image.nii", "turned.nii"]),
        ("fit image.nii.gz --mask empty.nii.gz -o o.medgs.safetensors", ["empty.nii.gz"]),
        ("fit image.nii.gz --mask far.nii.gz -o o.medgs.safetensors", ["image.nii", "far.nii"]),
        ("fit image.nii.gz --mask image.nii.gz -o o.medgs.safetensors", ["image.nii.gz"]),
        ("segment flat.nii.gz --prompts mask.nii.gz --background-label 9 -o o.nii", ["flat.nii"]),
        ("segment image.nii.gz --prompts empty.nii.gz -o o.nii", ["empty.nii.gz"]),
        ("segment image.nii.gz --prompts one.nii.gz -o o.nii", ["one.nii.gz"]),
        ("segment image.nii.gz --prompts far.nii.gz -o o.nii", ["far.nii.gz"]),
        ("segment image.nii.gz --point 1 2 2 2 --point 0 1 1 1 --initial empty.nii.gz -o o.nii",
         ["empty.nii.gz"]),
        ("mesh empty.nii.gz -o o.ply", ["empty.nii.gz"]),
        ("mesh mask.nii.gz --labels 5 -o o.ply", ["mask.nii.gz"]),
        ("mesh image.nii.gz --level 1e9 -o o.ply", ["image.nii.gz"]),
        ("evaluate mask.nii.gz far.nii.gz", ["mask.nii", "far.nii"]),
        ("evaluate image.nii.gz mask.nii.gz", ["image.nii.gz"]),
        ("classify flat.nii.gz --model breastmnist", ["flat.nii.gz"]),
    ],
)  # fmt: skip
def test_every_refusal_names_its_file(place, monkeypatch, words, files):
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 1, result.output
    lines = [x for x in result.stderr.splitlines() if not x.startswith("napari-medgs: warning")]
    assert len(lines) == 1
    for file in files:
        assert file in lines[0]
    assert not list(place.glob("o.*"))


def test_errors_of_the_stages_are_unchanged_for_callers():
    from napari_medgs.data.volume import Volume
    from napari_medgs.segmentation import Prompts, segment

    with pytest.raises(GeometryError, match=r"^The prompts' label image has shape"):
        segment(Volume.from_array(IMAGE), Prompts(labels=np.zeros((2, 2, 2), int)))


def test_an_image_of_a_training_folder_is_named(place):
    rows = [f"{name}.nii.gz,{label},train" for name, label in (("image", "a"), ("flat", "b"))]
    (place / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    words = ["train", str(place), "-o", str(place / "m.safetensors")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, result.output
    assert "flat.nii.gz: the image" in result.stderr
