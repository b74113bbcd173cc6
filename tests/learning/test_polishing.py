"""Polishing without strokes: what it does to a mask, and that cross-validation decides it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from scipy import ndimage  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from napari_medgs.cli import app  # noqa: E402
from napari_medgs.data.volume import Volume  # noqa: E402
from napari_medgs.errors import Cancelled, ParameterError  # noqa: E402
from napari_medgs.io import write_image  # noqa: E402
from napari_medgs.learning import (  # noqa: E402
    LearnParams,
    Segmenter,
    SegmenterResult,
    find_training_cases,
    save_segmenter,
    train_segmenter,
)
from napari_medgs.learning.polishing import (  # noqa: E402
    decide_polishing,
    describe_polishing,
    is_polished,
    polish_result,
)
from tests.learning.cases import phantom, write_nnunet  # noqa: E402
from tests.learning.test_training import untrained  # noqa: E402

PARAMS = LearnParams(
    steps=40, folds=4, width=4, levels=2, workers=0, precision="32", threads=1, polish=True,
    learning_rate=0.03, ema=0.8,
)  # fmt: skip
DECIDED = {"cases": 9, "difference": 0.01, "low": 0.005, "high": 0.02, "worse": 1, "used": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    source = find_training_cases(write_nnunet(tmp_path_factory.mktemp("polish"), 4))
    return train_segmenter(source, PARAMS).segmenter


def dice(one, other) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def mask_of(*words: object) -> np.ndarray:
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return np.asarray(nib.load(str(words[words.index("-o") + 1])).dataobj)


def test_borders_move_to_edges_and_probabilities_follow():
    image, truth, grid = phantom(3, size=24)
    rough = np.where(ndimage.binary_dilation(truth == 2), 2, truth)
    one_hot = np.stack([rough == v for v in (0, 2, 5)]).astype(np.float32)
    p = np.stack([ndimage.gaussian_filter(one, 1.2) for one in one_hot])
    p /= p.sum(0)
    rough = np.array([0, 2, 5], np.uint8)[p.argmax(0)]
    card = untrained().card
    result = SegmenterResult(rough, grid, p, (rough,), card.names)
    polished = polish_result(card, Volume(image[None], grid), result, threads=1)
    assert dice(polished.labels == 2, truth == 2) > dice(rough == 2, truth == 2) + 0.02
    assert polished.labels.dtype == rough.dtype
    assert set(np.unique(polished.labels)) <= {0, 2, 5}
    assert (np.array([0, 2, 5])[polished.probability().argmax(0)] == polished.labels).all()
    np.testing.assert_allclose(polished.probability().sum(0), 1, atol=1e-5)
    same = polished.labels == rough
    assert (polished.probability()[:, same] == result.probability()[:, same]).all()
    assert polished.fold_labels[0] is rough
    with pytest.raises(Cancelled):
        polish_result(card, Volume(image[None], grid), result, should_stop=lambda: True)
    nothing = replace(result, probabilities=np.stack([1 - 0 * p[0], 0 * p[0], 0 * p[0]]))
    assert polish_result(card, Volume(image[None], grid), nothing) is nothing


def test_only_a_clear_gain_is_used():
    better, worse = [0.72, 0.81, 0.77, 0.82], [0.7, 0.8, 0.75, 0.8]
    found = decide_polishing(worse, better)
    assert found["difference"] == pytest.approx(0.0175)
    assert found["low"] <= found["difference"] <= found["high"]
    assert (found["used"], found["worse"], found["cases"]) == (True, 0, 4)
    assert not decide_polishing(better, worse)["used"]
    assert decide_polishing(better, worse)["worse"] == 4
    assert not decide_polishing(worse[:3], better[:3])["used"]
    assert not decide_polishing([0.7] * 6, [0.8, 0.6] * 3)["used"]
    assert decide_polishing([], []) == {}


def test_the_card_decides_unless_the_user_does(trained, tmp_path: Path):
    image, _, grid = phantom(5)
    (tmp_path / "scans").mkdir()
    scan = write_image(tmp_path / "scans" / "a.nii.gz", image, grid)
    plain, deciding = (
        Segmenter(trained.card.with_numbers(trust=trust), trained.networks)
        for trust in ({}, {"polishing": DECIDED})
    )
    paths = [
        save_segmenter(tmp_path / f"{k}.safetensors", s) for k, s in enumerate((plain, deciding))
    ]
    volume = Volume(image[None], grid)
    found = plain.segment(volume, probabilities=True)
    polished = polish_result(plain.card, volume, found).labels
    assert (polished != found.labels).any()
    outputs = []
    for model, words in (
        (paths[0], ()), (paths[1], ("--no-polish",)), (paths[0], ("--polish",)), (paths[1], ()),
    ):  # fmt: skip
        out = tmp_path / f"m{len(outputs)}.nii.gz"
        outputs.append(mask_of("segment", scan, "--model", model, *words, "-o", out))
    expected = [found.labels, found.labels, polished, polished]
    for one, other in zip(outputs, expected):
        assert (one == other.T).all()
    result = CliRunner().invoke(
        app,
        [
            str(w)
            for w in ("segment", tmp_path / "scans", "--model", paths[1], "-o", tmp_path / "o")
        ],
    )
    assert result.exit_code == 0, result.output
    many = np.asarray(nib.load(tmp_path / "o" / "a.nii.gz").dataobj)
    assert (many == polished.T).all()
    result = CliRunner().invoke(
        app, ["segment", str(scan), "--polish", "--point", "1", "2", "3", "4", "-o", "x.nii.gz"]
    )
    assert result.exit_code == 2
    assert "--polish is for --model" in " ".join(result.output.split())


def test_what_is_sure_of_one_class_only_stays(tmp_path: Path):
    image, _, grid = phantom(5)
    model, volume = untrained(), Volume(image[None], grid)
    found = model.segment(volume, probabilities=True)
    assert found.probability().max() < 0.9
    assert polish_result(model.card, volume, found) is found
    with pytest.raises(ParameterError, match="probabilities"):
        polish_result(model.card, volume, model.segment(volume))


def test_folds_measure_it(trained, tmp_path: Path):
    card = trained.card
    found = card.trust["polishing"]
    assert found["cases"] == 4
    assert found["low"] <= found["difference"] <= found["high"]
    assert is_polished(card) == found["used"] == (found["low"] > 0)
    assert describe_polishing(card).endswith("used")
    with pytest.raises(ParameterError, match="leave out folds=0"):
        replace(PARAMS, folds=0)
    two = find_training_cases(write_nnunet(tmp_path / "two", 2))
    with pytest.raises(ParameterError, match="2 cases are too few"):
        train_segmenter(two, replace(PARAMS, folds=None))


@pytest.mark.parametrize(("count", "end"), [(1, "1 case), not used: that takes 4 cases or more"),
                                           (4, "4 cases), not used")])  # fmt: skip
def test_why_it_is_not_used_is_said(count, end):
    found = {"cases": count, "difference": 0.07, "low": -0.01, "high": 0.09, "used": False}
    assert describe_polishing(untrained(trust={"polishing": found}).card).endswith(end)


@pytest.mark.parametrize("found", [{}, {"used": True}, {"used": "yes"}, 3, {"difference": []}])
def test_damaged_cards_say_nothing(found):
    card = untrained(trust={"polishing": found}).card
    assert describe_polishing(card) == ""
    assert is_polished(card) == (found == {"used": True})
