"""``napari-medgs segment --explain``: what every contrast contributes to every class."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, explain_contrasts, fit_for_segmentation

SHAPE = (20, 18, 8)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """Two contrasts: the first shows an off-center box, the other one is noise."""
    rng = np.random.default_rng(0)
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:9, 3:14, 1:7] = 1
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[3:8, 8, 4] = 1
    strokes[16, 2:16, 4] = strokes[12:19, 16, 4] = 2
    for name, data in (
        ("shows", (100 * truth + rng.normal(0, 3, SHAPE)).astype(np.float32)),
        ("noise", rng.normal(0, 3, SHAPE).astype(np.float32)),
        ("strokes", strokes),
    ):
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path


def _segment(case: Path, *words: object) -> tuple[int, str]:
    images = [w for w in words if str(w) in ("shows", "noise")]
    rest = [w for w in words if w not in images]
    command = ["segment", *(case / f"{i}.nii.gz" for i in images), "-o", case / "out.nii.gz"]
    command += ["--prompts", case / "strokes.nii.gz", "--background-label", 2, *rest]
    result = CliRunner().invoke(app, [str(w) for w in command])
    return result.exit_code, result.output


def test_the_contrast_that_shows_the_class_contributes_most(case: Path) -> None:
    numbers = case / "numbers.json"
    status, said = _segment(case, "shows", "noise", "--explain", "--json", numbers)
    assert status == 0, said
    line = next(line for line in said.splitlines() if "contrasts of 1" in line)
    assert line.index("shows") < line.index("noise")
    found = json.loads(numbers.read_text())["contrasts"]
    assert list(found) == ["1"]
    shapley = found["1"]["shapley"]
    assert shapley["shows"] > shapley["noise"] + 0.1
    assert sum(shapley.values()) == pytest.approx(1 - found["1"]["without_image"], abs=1e-9)
    assert found["1"]["alone"]["shows"] > found["1"]["alone"]["noise"]
    weights = found["1"]["weights"]
    assert weights["shows"] > weights["noise"]
    assert sum(weights.values()) == pytest.approx(2)
    assert f"(weight {weights['shows']:.2f})" in said


def test_contrasts_that_count_alike_have_no_weights(case: Path) -> None:
    numbers = case / "numbers.json"
    words = ("--explain", "--no-weigh-contrasts", "--json", numbers)
    status, said = _segment(case, "shows", "noise", *words)
    assert status == 0, said
    assert "weights" not in json.loads(numbers.read_text())["contrasts"]["1"]
    assert "weight" not in said


def test_the_mask_is_the_one_without_explanation(case: Path) -> None:
    assert _segment(case, "shows", "noise")[0] == 0
    plain = np.asarray(nibabel.load(case / "out.nii.gz").dataobj)
    assert _segment(case, "shows", "noise", "--explain")[0] == 0
    np.testing.assert_array_equal(np.asarray(nibabel.load(case / "out.nii.gz").dataobj), plain)


def test_one_contrast_is_refused(case: Path) -> None:
    status, said = _segment(case, "shows", "--explain")
    assert status == 1
    assert "shows.nii.gz" in said
    assert "has one contrast" in " ".join(said.split())
    assert not (case / "out.nii.gz").exists()


def test_a_ranking_of_a_reader_is_compared(case: Path) -> None:
    numbers = case / "numbers.json"
    for order, expected in (("shows,noise", 1.0), ("noise,shows", 0.0)):
        words = ("--explain", "--ranking", f"1={order}", "--json", numbers)
        status, said = _segment(case, "shows", "noise", *words)
        assert status == 0, said
        found = json.loads(numbers.read_text())["contrasts"]["1"]
        assert found["ranking_agreement"] == expected
        assert f"agreement with the ranking {expected:.2f}" in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--explain", "--ranking", "1=shows"], "LABEL=CONTRAST"),
        (["--explain", "--ranking", "shows,noise"], "LABEL=CONTRAST"),
        (["--explain", "--ranking", "1=shows,shows"], "each once"),
        (["--explain", "--ranking", "1=shows,t1"], "the contrasts are shows, noise"),
        (["--ranking", "1=shows,noise"], "is for --explain"),
    ],
)
def test_rankings_that_cannot_be_used(case: Path, words: list[str], message: str) -> None:
    status, said = _segment(case, "shows", "noise", *words)
    assert status != 0
    assert message in " ".join(said.replace("│", " ").split())
    assert not (case / "out.nii.gz").exists()


def test_it_can_be_stopped(case: Path) -> None:
    image = np.stack(
        [np.asarray(nibabel.load(case / f"{n}.nii.gz").dataobj).T for n in ("shows", "noise")]
    )
    volume = Volume.from_array(image)
    field = fit_for_segmentation(volume, FitParams(gaussians=60, iterations=3))
    strokes = np.asarray(nibabel.load(case / "strokes.nii.gz").dataobj).T.astype(int)
    prompts, asked = Prompts(labels=strokes, background=2), []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        explain_contrasts(volume, prompts, field, should_stop=should_stop)
