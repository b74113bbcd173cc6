"""The Markdown file of results: one section a case, replaced in place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from suite.machine import machine_line
from suite.results import CaseResult, Table

HEADER = """# Benchmark results

Written by `make benchmark`: this package and every baseline that can run there, on the same data,
in the same run on the same machine. Short timings are medians of several runs. Ratios are above 1
where this package is better. "> 50 x": the baseline did not reach the target in its time limit.
"""


def cell(value: Any) -> str:
    """Return a table cell's text: floats to four significant digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|")


def table_lines(table: Table) -> list[str]:
    """Return a table as Markdown; columns after the first are set flush right if numeric."""
    rows = [[cell(value) for value in row] for row in table.rows]
    numeric = [
        k > 0 and any(isinstance(row[k], (int, float)) for row in table.rows)
        for k in range(len(table.columns))
    ]
    lines = [f"**{table.title}**", ""] if table.title else []
    lines.append(f"| {' | '.join(table.columns)} |")
    lines.append("|" + "|".join("--:" if right else "---" for right in numeric) + "|")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return [*lines, ""]


def section(result: CaseResult, machine: dict[str, Any], command: str, date: str) -> str:
    """Return a case's section, markers included."""
    lines = [f"<!-- case: {result.name} -->", "", f"## {result.name}: {result.title}", ""]
    lines += [f"`{command}`, {date}. {machine_line(machine)}.", ""]
    if result.ratios:
        rows = tuple(
            (r.what, r.baseline, f"**{r}**", r.ours, r.theirs, r.note) for r in result.ratios
        )
        columns = ("what", "against", "ratio", "ours", "theirs", "remark")
        lines += table_lines(Table("", columns, rows))
    for table in result.tables:
        lines += table_lines(table)
    for note in result.notes:
        lines += [note, ""]
    return "\n".join([*lines, f"<!-- end: {result.name} -->"])


def replace_section(text: str, name: str, new: str) -> str:
    """Return the file's text with a case's section replaced, or appended where it is new."""
    pattern = re.compile(
        rf"<!-- case: {re.escape(name)} -->.*?<!-- end: {re.escape(name)} -->", re.DOTALL
    )
    if pattern.search(text):
        return pattern.sub(lambda _: new, text, count=1)
    return (text.rstrip() or HEADER.rstrip()) + "\n\n" + new + "\n"


def write_results(
    path: Path, results: list[CaseResult], machine: dict[str, Any], command: str, date: str
) -> None:
    """Replace the sections of these cases in a Markdown file; other sections stay."""
    from napari_medgs.io._atomic import atomic_path

    text = path.read_text(encoding="utf-8") if path.is_file() else HEADER
    for result in results:
        text = replace_section(text, result.name, section(result, machine, command, date))
    with atomic_path(path) as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")
