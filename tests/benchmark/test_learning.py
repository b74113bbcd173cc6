"""The case "learn" of the benchmark suite: its split, its paired differences, its resuming."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import learning
from learning import TEST, Run, perform_all, plan, split, training_names
from learning_report import area_under_curve, paired, report


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for k in range(200):
        (tmp_path / "images" / f"hippocampus_{k:03d}.nii.gz").touch()
    return tmp_path


def test_test_cases_are_never_trained_on(folder):
    pool, test = split(folder)
    assert (len(pool), len(test), len({*pool, *test})) == (160, TEST, 200)
    for seed in range(3):
        few = training_names(folder, Run("unet", 5, seed, 1.0))
        more = training_names(folder, Run("unet", 20, seed, 1.0))
        assert few == more[:5]
        assert not {*more} & {*test}
    first, second = (training_names(folder, Run("unet", 5, s, 1.0)) for s in (0, 1))
    assert set(first) != set(second)


def test_paired_differences():
    theirs = {0: np.linspace(0.6, 0.9, 40), 1: np.linspace(0.5, 0.8, 40)}
    ours = {s: d + 0.02 for s, d in theirs.items()}
    mean, low, high = paired(ours, theirs)
    assert (mean, low, high) == pytest.approx((0.02,) * 3)
    noisy = {0: theirs[0] + np.random.default_rng(0).normal(0, 0.1, 40)}
    mean, low, high = paired(noisy, theirs)
    assert low < mean < high
    assert low < 0 < high
    assert paired({5: theirs[0]}, theirs) is None


def test_area_under_curve_is_that_of_sklearn(rng):
    from sklearn.metrics import roc_auc_score

    score, failed = rng.random(60), rng.random(60) < 0.3
    assert area_under_curve(score, failed) == pytest.approx(roc_auc_score(~failed, score))
    assert area_under_curve(score, np.zeros(60, bool)) is None


def done(run: Run, mean: float) -> dict:
    scores = {
        f"case{k}": {"dice": [mean, mean + 0.02], "hd95": [2.0, 1.0], "agreement": mean}
        for k in range(6)
    }
    numbers = dict.fromkeys(("cpu_seconds", "parameters", "peak_bytes", "seconds_case"), 10.0)
    return {
        **asdict(run), **numbers, "seconds_wanted": run.seconds, "steps_wanted": run.steps,
        "steps": 100.0, "scores": scores,
    }  # fmt: skip


def test_the_report_compares_with_the_same_seed():
    runs = [done(Run("unet", 5, s, 80.0), 0.8) for s in (0, 1)]
    runs += [done(Run("lomix", 5, s, 80.0), 0.81) for s in (0, 1)]
    runs += [done(Run("monai-segresnet", 5, s, 80.0), 0.7) for s in (0, 1)]
    runs += [done(Run("unet", 5, 0, 80.0, folds=4), 0.5)]
    result = report(runs, ["a: no time left"])
    plain, folded = result.tables[0], result.tables[2]
    rows = {row[0]: row for row in plain.rows}
    at = plain.columns.index("difference")
    assert rows["lomix"][at] == "+0.010"
    assert rows["unet"][at] == ""
    (ratio,) = result.ratios
    assert (ratio.baseline, ratio.better) == ("monai-segresnet", "higher")
    assert ratio.value == pytest.approx(0.81 / 0.71)
    assert folded.title == "Agreement of the folds"
    assert "Not done: a: no time left." in result.notes


def test_finished_runs_are_not_done_again(tmp_path, monkeypatch):
    runs = plan(["unet", "lomix"], (5,), (0, 1), 80.0, 0, "cpu")
    assert len(runs) == len({run.name for run in runs}) == 4
    for run in runs:
        (tmp_path / f"{run.name}.json").write_text(json.dumps(done(run, 0.8)))
    monkeypatch.setattr(learning.subprocess, "Popen", pytest.fail)
    said = []
    assert perform_all(runs, tmp_path, tmp_path, 2, 1, None, said.append) == []
    assert said == ["4 of 4 runs are there already"]
    (tmp_path / f"{runs[0].name}.json").unlink()
    late = perform_all(runs, tmp_path, tmp_path, 2, 1, 50.0, said.append)
    assert late == [f"{runs[0].name}: no time left"]
