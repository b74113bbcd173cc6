"""The regression guard compares ratios with stored ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_medgs.errors import FileError
from suite.check import compare, load_results, store_results
from suite.fit_bytes import coarse_copy
from suite.results import BenchmarkError, CaseResult, Ratio


def _cases(theirs: float, gaussians: str = "100") -> dict:
    ratio = Ratio(f"one step, {gaussians} Gaussians, s", "C++", 1.0, theirs)
    return {"fit": CaseResult("fit", "a title", [ratio]).to_dict()}


def test_a_fallen_ratio_is_told() -> None:
    count, falls = compare(_cases(0.5, "1,200"), _cases(0.9))
    assert (count, len(falls)) == (1, 1)
    assert "0.5 x, was 0.9 x" in falls[0]
    assert compare(_cases(0.8), _cases(0.9)) == (1, [])
    assert compare(_cases(5.0), _cases(0.9)) == (1, [])


def test_a_ratio_that_is_no_number_any_more_is_told() -> None:
    assert len(compare(_cases(float("nan")), _cases(0.9))[1]) == 1


def test_what_is_not_stored_is_not_compared() -> None:
    assert compare(_cases(1.0), {}) == (0, [])


def test_stored_cases_are_replaced_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    store_results(file, {"machine": {"cpu": "a"}, "cases": _cases(2.0)})
    other = {"scaling": CaseResult("scaling", "sizes").to_dict()}
    store_results(file, {"machine": {"cpu": "b"}, "cases": other})
    stored = load_results(file)
    assert stored["fit"]["ratios"][0]["ratio"] == 2
    assert stored["fit"]["machine"] == {"cpu": "a"}
    assert stored["scaling"]["machine"] == {"cpu": "b"}


@pytest.mark.parametrize("text", ["", "[]", '{"cases": 3}', "{}"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(FileError, match="no results"):
        load_results(file)


def test_a_coarse_copy_takes_less_and_is_near() -> None:
    z, y, x = np.meshgrid(*(np.linspace(0, 3, 24, dtype=np.float32),) * 3, indexing="ij")
    image = (0.5 + 0.4 * np.sin(z) * np.cos(y + x)).astype(np.float32)
    size, back = coarse_copy(image, 2.0)
    assert size == 12**3 * 4
    assert back.shape == image.shape
    assert np.abs(back - image).mean() < 0.03


def test_the_command_fails_where_a_ratio_fell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite import runner
    from suite.command import benchmark

    given: dict = {}

    def run(*arguments: object, **options: object) -> dict:
        given.update(options)
        return {"cases": _cases(1.0)}

    monkeypatch.setattr(runner, "run_suite", run)
    file = tmp_path / "results.json"
    store_results(file, {"machine": {}, "cases": _cases(1.2)})
    benchmark(["fit"], data=tmp_path, check=file, quiet=True)
    assert given["store"] is None
    assert given["markdown"] is None
    store_results(file, {"machine": {}, "cases": _cases(9.0)})
    with pytest.raises(BenchmarkError, match="1 x, was 9 x"):
        benchmark(["fit"], data=tmp_path, check=file, quiet=True)
    store_results(file, {"machine": {}, "cases": {"fit": {"ratios": []}}})
    with pytest.raises(FileError, match="nothing was compared"):
        benchmark(["fit"], data=tmp_path, check=file, quiet=True)
