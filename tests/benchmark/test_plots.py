"""The plots of the documentation are drawn from stored results."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from suite.check import store_results


def test_plots_show_every_curve(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "plots.py"
    spec = importlib.util.spec_from_file_location("plots", script)
    assert spec is not None
    assert spec.loader is not None
    plots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plots)
    numbers = {
        "course": [(0.5, 20.0), (1.0, 30.0)],
        "races": {"siren": {"trace": [(1.0, 15.0), (5.0, 25.0)]}},
    }
    assert plots.time_curves(numbers)["SIREN"][1] == (5.0, 25.0)
    results, out = tmp_path / "results.json", tmp_path / "images"
    store_results(results, {"machine": {}, "cases": {"fit": {"numbers": numbers}}})
    plots.main(["--results", str(results), "--out", str(out)])
    assert [file.name for file in out.iterdir()] == ["quality_time.svg"]
    # Text is drawn as outlines; its source stands beside it as a comment.
    text = (out / "quality_time.svg").read_text()
    assert "<!-- SIREN -->" in text
    assert "<!-- ours -->" in text
    points = {"Gaussian field": [(1000, 20.0), (2000, 24.0)]}
    memory = {"memory": {"numbers": {"bytes": points}}}
    store_results(results, {"machine": {}, "cases": memory})
    plots.main(["--results", str(results), "--out", str(out)])
    assert (out / "quality_bytes.svg").is_file()
