"""The case "fit": its parts on tiny volumes, its processes, its tables."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.errors import MedGSError
from napari_medgs.io import read_volume, write_image, write_labels
from suite import fit_bars, fit_baselines, fit_case, fit_scaling, worker
from suite.isolated import allowed_bytes, peak_bytes, run_isolated
from suite.markdown import section
from suite.race import Race
from suite.registry import Context
from suite.results import BenchmarkError, CaseResult


@pytest.fixture
def scans(tmp_path: Path, tiny_volume: Volume, tiny_labels: np.ndarray) -> Context:
    """A data folder with one tiny image and mask."""
    write_image(tmp_path / "image.nii.gz", tiny_volume.data, tiny_volume.grid)
    write_labels(tmp_path / "mask.nii.gz", tiny_labels, tiny_volume.grid)
    return Context(tmp_path, quick=True, runs=1, threads=2, say=lambda line: None)


def test_a_bar_reports_time_quality_and_memory(scans: Context) -> None:
    bar = fit_bars.Bar("tiny", "image.nii.gz", 12.0, "mask.nii.gz")
    report = fit_bars.measure_bar(bar, scans)
    assert report["psnr"] > 12
    assert 0 < report["seconds_to_goal"] <= report["seconds"] <= report["seconds_all"]
    assert report["dice_mean"] > 0.5
    assert 50e6 < report["bytes_before"] <= report["peak_bytes"] < 3e9
    # One contrast, background and two labels.
    assert report["allowed_bytes"] == 12 * 12 * 20 * 24 * 6 + 500_000_000
    unreachable = {**report, "seconds_to_goal": float("nan")}
    table = fit_bars.bars_table([report, unreachable])
    assert "not reached" in table.rows[1]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_scaling_measures_every_size(monkeypatch: pytest.MonkeyPatch, scans: Context) -> None:
    monkeypatch.setattr(fit_scaling, "IMAGE", "image.nii.gz")
    tasks = []

    def answer(task: dict) -> dict:
        tasks.append(task)
        shape = task.get("shape", task.get("synthetic"))
        if shape is None:  # the thick slices, on disk
            shape = read_volume(task["images"][0]).grid.shape
        voxels = int(np.prod(shape))
        metrics = {"n_gaussians": 7, "psnr": 40.0}
        seconds = 1e-6 * voxels
        return {
            "voxels": voxels,
            "channels": 1,
            "metrics": metrics,
            "peak_bytes": 10**9,
            "seconds_fit": seconds,
            "seconds": 2 * seconds,
        }

    def command(words: list[str]) -> float:
        assert "--interpolate" in words
        Path(words[words.index("--json") + 1]).write_text('{"through_plane_targets": "motion"}')
        return 3.5

    monkeypatch.setattr(fit_scaling, "run_isolated", answer)
    monkeypatch.setattr(fit_scaling, "time_command", command)
    scaling = fit_scaling.measure_scaling(scans)
    assert scaling["exponent"] == pytest.approx(1)
    assert len(tasks) == 5
    assert tasks[3]["params"]["interpolate"] is True
    assert scaling["between"]["command_seconds"] == 3.5
    assert scaling["between"]["voxels"] == 16 * 40 * 40
    table = fit_scaling.scaling_table(scaling)
    assert len(table.rows) == 5
    assert table.rows[0][4] == pytest.approx(1.0)
    assert "frames between" in table.rows[3][0]
    monkeypatch.setattr(fit_case, "measure_scaling", lambda context: scaling)
    assert "took 3.5 s" in " ".join(fit_case.run_scaling(scans).notes)


def test_thick_slices_average_thin_ones(tmp_path: Path) -> None:
    data = np.zeros((1, 24, 8, 8), np.float32)
    data[0, ::2] = 100
    write_image(tmp_path / "thin.nii.gz", data, Volume.from_array(data).grid)
    thick = fit_scaling.thick_slices(tmp_path / "thin.nii.gz", (12, 16, 16))
    assert thick.grid.shape == (12, 16, 16)
    assert thick.grid.spacing == pytest.approx((2.0, 0.5, 0.5))
    assert np.abs(thick.data[0, 1:-1] - 50).max() < 1e-3


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"absent\.nii"):
        fit_scaling.time_command(["info", str(tmp_path / "absent.nii")])
    assert fit_scaling.time_command(["--help"]) > 0.1


def test_growth_finds_the_power() -> None:
    assert fit_scaling.growth([10, 100, 1000], [2.0, 200.0, 20000.0]) == pytest.approx(2)


def test_process_of_its_own_says_why_it_failed(tmp_path: Path) -> None:
    with pytest.raises(MedGSError, match="absent"):
        run_isolated({"images": [str(tmp_path / "absent.nii.gz")]})
    assert peak_bytes() > 30e6
    assert allowed_bytes(1000, 1) == 500_036_000


def test_worker_answers_one_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"synthetic": [12, 32, 32], "params": {"iterations": 5}, "shape": [10, 24, 24]}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(task)))
    worker.main()
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["voxels"] == 10 * 24 * 24
    assert answer["channels"] == 1
    assert answer["metrics"]["iterations"] == 5


def test_synthetic_volume_is_tissue_in_air() -> None:
    data = worker.synthetic_volume((10, 40, 40)).data
    assert data.dtype == np.int16
    assert (data < -900).mean() > 0.2
    assert (data > -100).mean() > 0.2


def test_steps_of_ours_and_others_are_timed(scans: Context, tiny_volume: Volume) -> None:
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.fitting.problem import make_problem

    params = FitParams(gaussians=120, iterations=5)
    field = fit(tiny_volume, params).field
    problem = make_problem(tiny_volume, params, None, {})
    seconds = fit_baselines.measure_steps(tiny_volume, field, problem, scans)
    assert {"ours", "torch"} <= set(seconds)
    assert all(0 < value < 60 for value in seconds.values())
    race = fit_baselines.race_blend(tiny_volume, "sum", 15.0, 20.0, scans)
    assert race.reached
    # The problem's crop and its rest together are the volume.
    squares = float(np.square(problem.target.images[0] - problem.background[0]).sum())
    background = fit_baselines.psnr_of(problem, squares)
    assert 0 < background < 25


def test_ratios_and_traces_become_markdown() -> None:
    lost = Race(90.0, 20.0, False, 400, [(10.0, 15.0), (90.0, 20.0)])
    won = Race(12.0, 36.1, True, 50, [(1.0 * k, 20.0 + k) for k in range(30)])
    result = CaseResult("fit", "x")
    result.ratios = [
        fit_baselines.race_ratio("T1 to 36 dB, s", "slow", 3.0, lost, "n"),
        fit_baselines.race_ratio("T1 to 36 dB, s", "quick", 3.0, won, "n"),
        *fit_case.step_ratios("T1", 10, {"ours": 0.1, "torch": 9, "cpp 8": 0.09, "cpp 16": 0.08}),
    ]
    races = {"medgs": lost, "siren": lost, "sum": won, "alpha": lost}
    table = fit_case.trace_table(races, [{"seconds": 0.5, "psnr": 30.0}])
    assert table.rows[3][1].count(" at ") == 8
    result.tables = [table]
    machine = {
        "cpu": "c",
        "vector": "v",
        "cores": 2,
        "memory_gib": 1,
        "system": "s",
        "load_before": 0,
        "versions": {},
    }
    text = section(result, machine, "cmd", "today")
    assert "**> 30 x**" in text
    assert "20.00 dB when its time was up" in text
    assert "**4 x**" in text
    assert "**90 x**" in text
    assert "**0.8 x**" in text
    assert "16 lanes" in text
