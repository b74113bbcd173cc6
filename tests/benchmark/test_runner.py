"""Registry, runner, Markdown file and command of the benchmark suite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from napari_medgs.errors import FileError, ParameterError
from suite import CaseResult, Context, Ratio, Table, registry, run_suite
from suite.command import benchmark
from suite.machine import describe_machine
from suite.markdown import replace_section, table_lines
from suite.runner import side_by_side, timed

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def toy(context: Context) -> CaseResult:
    """A case for these tests."""
    ratio = Ratio("things, seconds", "a snail", 0.5, 60.0, ">", note="asleep")
    table = Table("Sizes", ("what", "n"), (("a|b", 1234567), ("c", 0.123456)))
    return CaseResult(
        "toy", "toys", [ratio], [table], [f"runs {context.runs}"], {"nan": float("nan")}
    )


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.Entry("toys", f"{__name__}:toy")
    monkeypatch.setitem(registry.ENTRIES, "toy", entry)


def test_ratio_counts_what_is_better() -> None:
    assert str(Ratio("s", "b", 2.0, 9.0)) == "4.5 x"
    assert str(Ratio("s", "b", 0.1, 120.0, ">")) == "> 1,200 x"
    assert Ratio("dice", "b", 0.9, 0.6, better="higher").value == pytest.approx(1.5)


def test_suite_writes_json_and_replaces_only_its_section(with_toy: None, tmp_path: Path) -> None:
    markdown, numbers = tmp_path / "RESULTS.md", tmp_path / "r.json"
    lines: list[str] = []
    context = Context(tmp_path, runs=7, say=lines.append)
    run_suite(["toy"], context, json_file=numbers, markdown=markdown)
    first = markdown.read_text()
    markdown.write_text(first.replace("things", "old things") + "\nkept by hand\n")
    run_suite(["toy"], context, json_file=numbers, markdown=markdown)
    text = markdown.read_text()
    assert text.count("## toy: toys") == 1
    assert "old things" not in text
    assert "kept by hand" in text
    assert "**> 120 x**" in text
    assert "a\\|b" in text
    assert "1,234,567" in text
    report = json.loads(numbers.read_text())
    assert report["cases"]["toy"]["ratios"][0]["ratio"] == 120
    assert report["cases"]["toy"]["numbers"]["nan"] is None
    assert report["machine"]["cores"] >= 1
    assert lines[0] == "toy: start"


def test_sections_of_other_cases_stay() -> None:
    text = "<!-- case: a -->1<!-- end: a -->\n<!-- case: ab -->2<!-- end: ab -->"
    changed = replace_section(text, "ab", "<!-- case: ab -->\\3<!-- end: ab -->")
    assert "-->1<" in changed
    assert "\\3" in changed
    assert "2" not in changed


def test_table_lines_align_numbers_right() -> None:
    lines = table_lines(Table("", ("what", "n", "remark"), (("a", 1.5, "x"),)))
    assert lines[1] == "|---|--:|---|"
    assert lines[2] == "| a | 1.5 | x |"


def test_unknown_case_and_missing_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no benchmark 'nope'"):
        registry.choose(["nope"])
    with pytest.raises(FileError, match="no folder"):
        registry.find_data(tmp_path / "absent")
    with pytest.raises(FileError, match="missing"):
        Context(tmp_path).file("ct/ct.nii.gz")


def test_data_folder_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDGS_TEST_DATA", str(tmp_path))
    assert registry.find_data() == tmp_path
    monkeypatch.setenv("MEDGS_TEST_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileError, match="MEDGS_TEST_DATA"):
        registry.find_data()


def test_cases_of_the_source_tree_load_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "extra_case.py").write_text("def run(context):\n    return 5\n")
    entry = registry.Entry("", "benchmarks/extra_case.py:run")
    monkeypatch.setitem(registry.ENTRIES, "extra", entry)
    monkeypatch.setattr(registry, "source_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert registry.load("extra")(Context(tmp_path)) == 5
    monkeypatch.setattr(registry, "source_folder", lambda: None)
    with pytest.raises(FileError, match="source tree"):
        registry.load("extra")


def test_command_runs_a_case(with_toy: None, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(benchmark)
    out = tmp_path / "R.md"
    arguments = ["toy", "--data", str(tmp_path), "--results", str(out), "--quick"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert "> 120 x" in answer.output
    assert "benchmarks/run.py toy --quick" in out.read_text()


def test_timing_helpers() -> None:
    calls: list[str] = []
    seconds = side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b", "a", "b"]
    assert set(seconds) == {"a", "b"}
    assert timed(lambda: 3, 5)[1] == 3


def test_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["cpu"]
    assert machine["memory_gib"] > 0
    assert machine["versions"]["numpy"][0].isdigit()


def test_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, suite.command\n"
        "print([m for m in ('torch', 'numba', 'scipy', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=BENCHMARKS
    )
    assert done.stdout.strip() == "[]"
