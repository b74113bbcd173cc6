"""``napari-medgs segment --initial``: masks and probabilities that prompts correct."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app

SHAPE = (24, 20, 16)  # i, j, k
AFFINE = np.diag([-1.0, 1.0, 1.5, 1.0])


def _ball(center: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    return ((grid - np.array(center)) ** 2).sum(-1) <= radius**2


def _write(path: Path, data: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)
    return path


@pytest.fixture
def case(tmp_path: Path) -> Path:
    truth = _ball((12, 10, 8), 6)
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    _write(tmp_path / "scan.nii.gz", (100 * truth + noise).astype(np.float32))
    _write(tmp_path / "truth.nii.gz", truth.astype(np.uint8))
    rough = truth & ~_ball((16, 10, 8), 3.5)
    _write(tmp_path / "rough.nii.gz", rough.astype(np.uint8))
    inside = np.where(rough, 0.95, 0.05).astype(np.float32)
    inside[_ball((16, 10, 8), 5)] = 0.45
    _write(tmp_path / "prior.nii.gz", np.stack([1 - inside, inside], axis=-1))
    return tmp_path


def _segment(case: Path, *words: object, status: int = 0) -> str:
    command = ["segment", case / "scan.nii.gz", "-o", case / "out.nii.gz", "-q", *words]
    result = CliRunner().invoke(app, [str(w) for w in command])
    assert result.exit_code == status, f"{result.output}\n{result.exception}"
    return result.stderr


def _read(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum()))


def test_a_point_corrects_a_mask(case: Path) -> None:
    truth, rough = _read(case / "truth.nii.gz"), _read(case / "rough.nii.gz")
    _segment(case, "--initial", case / "rough.nii.gz", "--point", 1, 8, 10, 16)
    found = _read(case / "out.nii.gz")
    assert _dice(found, truth) > _dice(rough, truth) + 0.01
    assert (found[rough > 0] == 1).all()


def test_names_of_the_mask_stay(case: Path) -> None:
    """Those of prompts count first; a value that is two classes gives a warning."""
    names, strokes = case / "rough.json", case / "strokes.json"
    names.write_text('{"labels": {"1": "liver", "2": "spleen"}}')
    correct = ("--initial", case / "rough.nii.gz", "--point", 1, 8, 10, 16)
    assert "values count" not in _segment(case, *correct)
    assert json.loads((case / "out.json").read_text()) == {"labels": {"1": "liver"}}
    marked = np.zeros(SHAPE, np.uint8)
    marked[16, 10, 8], marked[1, 1] = 1, 2
    _write(case / "strokes.nii.gz", marked)
    more = (*correct[:2], "--prompts", case / "strokes.nii.gz", "--background-label", 2)
    strokes.write_text('{"labels": {"1": "Liver", "2": "background"}}')
    assert "values count" not in _segment(case, *more)
    strokes.write_text('{"labels": {"1": "kidney", "2": "background"}}')
    told = " ".join(_segment(case, *more).split())
    assert "the value 1 is 'liver' in" in told
    assert "and 'kidney' in" in told
    assert json.loads((case / "out.json").read_text()) == {"labels": {"1": "kidney"}}


def test_probabilities_need_no_prompts(case: Path) -> None:
    truth, rough = _read(case / "truth.nii.gz"), _read(case / "rough.nii.gz")
    _segment(case, "--initial", case / "prior.nii.gz")
    assert _dice(_read(case / "out.nii.gz"), truth) > _dice(rough, truth) + 0.01


def test_a_margin_lets_the_border_move(case: Path) -> None:
    truth, rough = _read(case / "truth.nii.gz"), _read(case / "rough.nii.gz")
    _segment(case, "--initial", case / "rough.nii.gz", "--initial-margin", 4)
    assert _dice(_read(case / "out.nii.gz"), truth) > _dice(rough, truth)


def test_a_mask_alone_is_refused(case: Path) -> None:
    said = _segment(case, "--initial", case / "rough.nii.gz", status=1)
    assert "rough.nii.gz: nothing would change this mask" in said
    assert not (case / "out.nii.gz").exists()


def test_probabilities_must_add_up_to_one(case: Path) -> None:
    _write(case / "bad.nii.gz", 2 * _read(case / "prior.nii.gz"))
    said = _segment(case, "--initial", case / "bad.nii.gz", status=1)
    assert "bad.nii.gz" in said
    assert "add up to 1, not to 2 to 2: divide them by their sum" in said


def test_probabilities_of_another_grid_are_brought_over(case: Path) -> None:
    affine = AFFINE.copy()
    affine[:3, :3] *= 2
    coarse = _read(case / "prior.nii.gz")[:-2:2, ::2, ::2]  # the last two planes are not reached
    nibabel.save(nibabel.Nifti1Image(coarse, affine), case / "coarse.nii.gz")
    said = _segment(case, "--initial", case / "coarse.nii.gz", status=1)
    assert "coarse.nii.gz" in said
    assert "--resample does that" in said
    said = _segment(case, "--initial", case / "coarse.nii.gz", "--resample")
    assert "coarse.nii.gz does not reach" in said
    assert "taken as background" in said
    found, truth = _read(case / "out.nii.gz"), _read(case / "truth.nii.gz")
    assert not found[-2:].any()
    assert _dice(found, truth) > 0.75


def test_probabilities_of_a_moved_grid_are_refused(case: Path) -> None:
    _write(case / "small.nii.gz", _read(case / "prior.nii.gz")[1:])
    assert "small.nii.gz" in _segment(case, "--initial", case / "small.nii.gz", status=1)


def test_a_background_value_that_no_prompt_has_is_refused(case: Path) -> None:
    """The background of the mask, of probabilities and around boxes is no prompt."""
    rough, prior = case / "rough.nii.gz", case / "prior.nii.gz"
    value = ("--background-label", 7)
    point, box = ("--point", 1, 8, 10, 16), ("--box", 1, 2, 4, 6, 15, 17, 19)
    for start in (rough, prior):
        said = _segment(case, "--initial", start, *point, *value, status=1)
        assert (
            "No voxel is marked as background, whose value is 7; the marked values are 1." in said
        )
    said = _segment(case, "--initial", prior, *value, status=1)
    assert "whose value is 7; nothing is marked." in said
    said = _segment(case, *box, *value, status=1)
    assert "whose value is 7; the marked values are 1." in said
    assert not (case / "out.nii.gz").exists()
    _segment(case, "--initial", rough, *point, "--point", 7, 1, 1, 1, *value)
    assert set(np.unique(_read(case / "out.nii.gz"))) == {0, 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--initial-margin", 3), "--initial-margin has no effect without --initial"),
        (("--agreement",), "--agreement is for --model without prompts"),
        (("--no-agreement",), "--agreement is for --model without prompts"),
    ],
)
def test_options_without_effect_are_refused(
    case: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], says: str
) -> None:
    monkeypatch.setattr("napari_medgs.io.read_volumes", None)  # before work starts
    points = ("--point", 1, 8, 10, 12, "--point", 0, 1, 1, 1)
    said = _segment(case, *points, *words, status=2)
    assert says in " ".join(said.replace("│", " ").split())
