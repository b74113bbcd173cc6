"""From click to mask through the server and the official client; Dice after simulated prompts.

    python benchmarks/run.py serve

measures all at once. In parts, each of which goes on where the last one ended:

    python benchmarks/serve.py DATA --records serve.json --only quality --minutes 8
    python benchmarks/serve.py DATA --records serve.json --only seconds --minutes 8
    python benchmarks/serve.py DATA --records serve.json --only report --markdown RESULTS.md

``serve_quality.py`` has the simulated users and the baselines, ``serve_latency.py`` the seconds;
the server runs as a process of its own, ``napari-medgs serve``.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import serve_latency
import serve_quality
from serve_client import served
from serve_quality import BASELINES, KINDS, LIMIT, ORGANS, REPORTED, TUNED
from serve_records import Records
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table, median

SHOWN = (1, 2, 3, 5, 6)
QUICK = {"hippocampus_008": REPORTED["hippocampus_008"]}


def empty_records() -> dict[str, Any]:
    """Return records of nothing."""
    return {"report": {}, "tune": {}, "seconds": {}}


def quality_table(records: dict[str, Any], split: str) -> Table:
    """Return the Dice of all structures of a split."""
    rows: list[tuple[Any, ...]] = []
    for name, methods in records.items():
        for method in (*KINDS, *BASELINES):
            if method in methods:
                scores = methods[method]
                cells = [f"{scores[n - 1]:.3f}" if scores else "-" for n in SHOWN]
                rows.append((name, method, *cells))
    shared = [m for m in records.values() if all(k in m for k in KINDS)]
    for method in (*KINDS, *BASELINES):
        found = [m[method] for m in shared if m.get(method)]
        if found:
            means = np.mean(found, axis=0)
            rows.append((f"mean of {len(found)}", method, *(f"{means[n - 1]:.3f}" for n in SHOWN)))
    title = {
        "report": "Dice after the first prompt and after clicks in the largest error",
        "tune": "The same on the cases that settings were chosen on",
    }[split]
    columns = ("structure", "first prompt, method", *(f"{n} prompts" for n in SHOWN))
    return Table(title, columns, tuple(rows))


def seconds_table(records: dict[str, Any]) -> Table:
    """Return seconds and memory of all sizes."""
    rows = []
    for name, found in records.items():
        size, sessions = name.split(", ")
        seconds, used = found["seconds"], found["cpu_seconds"]
        rows.append(
            (size, sessions, f"{max(found['first']):.2f}", f"{median(seconds):.3f}",
             f"{float(np.percentile(seconds, 95)):.3f}", f"{median(used):.2f}" if used else "",
             len(seconds), f"{found['peak_bytes'] / 1e9:.2f}")
        )  # fmt: skip
    columns = ("image", "sessions", "first, s", "median, s", "95 %, s", "CPU s, median", "clicks",
               "peak, GB")  # fmt: skip
    return Table(
        "Seconds from click to mask through the client, and memory of the server", columns,
        tuple(rows),
    )  # fmt: skip


def report(records: dict[str, Any]) -> CaseResult:
    """Return tables and ratios of what was measured."""
    tables = [
        quality_table(records[split], split) for split in ("report", "tune") if records[split]
    ]
    if records["seconds"]:
        tables.append(seconds_table(records["seconds"]))
    ratios, notes = [], []
    main = {k: m for k, m in records["report"].items() if k.split(":")[0] in ORGANS}
    if main:
        kinds = [k for k in KINDS if all(k in m for m in main.values())]
        means = ", ".join(
            f"{kind} {np.mean([m[kind][-1] for m in main.values()]):.3f}" for kind in kinds
        )
        if means:
            notes.append(
                f"Mean Dice of {len(main)} organs and tumors after a first prompt and 5 clicks: "
                f"{means}."
            )
    for other in BASELINES:
        both = [
            (m["clicks"][-1], m[other][-1]) for m in records["report"].values() if m.get(other)
        ]
        if both:
            a, b = np.mean(both, axis=0)
            ratios.append(
                Ratio(
                    f"Dice after six clicks, {len(both)} structures", other, float(a), float(b),
                    better="higher",
                )
            )  # fmt: skip
    notes += [
        "Clients are the official nninteractive-client. 'n prompts' are the first one and n - 1 "
        "clicks. Baselines take clicks of their own sequence and the image's border as "
        f"background; one that takes more than {LIMIT:g} s for an answer has none (-).",
        "Times are those of the lateral ventricles of a brain MRI, cut or resampled to the size; "
        "'first' begins with the click right after the upload and holds the wait for the fit.",
    ]
    return CaseResult(
        "serve", "clicks through the server", ratios=ratios, tables=tables, notes=notes,
        numbers={"dice": records["report"], "latency": records["seconds"]},
    )  # fmt: skip


def run(context: Context) -> CaseResult:
    """Run as a case of the suite."""
    records = empty_records()
    wanted = QUICK if context.quick else REPORTED
    with served(context.threads) as (url, _):
        serve_quality.measure(context, url, wanted, KINDS + BASELINES, Records(records["report"]))
    serve_latency.measure(context, Records(records["seconds"]))
    return report(records)


def main() -> None:
    """Measure a part, or write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--only", choices=("quality", "seconds", "report"), default="report")
    parser.add_argument("--split", choices=("report", "tune"), default="report")
    parser.add_argument("--method", nargs="+", choices=KINDS + BASELINES)
    parser.add_argument("--case", nargs="+")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--again", action="store_true", help="measure anew what is asked for")
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    records = empty_records()
    if given.records.is_file():
        records |= json.loads(given.records.read_text())

    def keep() -> None:
        given.records.write_text(json.dumps(records, indent=1) + "\n")

    context = Context(given.data, threads=given.threads)
    until = time.monotonic() + 60 * given.minutes
    if given.only == "quality":
        wanted = REPORTED if given.split == "report" else TUNED
        wanted = {k: v for k, v in wanted.items() if not given.case or k in given.case}
        methods = tuple(given.method or KINDS + BASELINES)
        if given.again:
            for name, found in records[given.split].items():
                for method in methods if name.split(":")[0] in wanted else ():
                    found.pop(method, None)
        with served(given.threads) as (url, _):
            serve_quality.measure(
                context, url, wanted, methods, Records(records[given.split], keep, until)
            )
    elif given.only == "seconds":
        if given.again:
            records["seconds"].clear()
        serve_latency.measure(context, Records(records["seconds"], keep, until))
    result = report(records)
    if given.markdown is not None:
        from suite.machine import describe_machine
        from suite.markdown import write_results

        command = "python benchmarks/serve.py DATA --records RECORDS, in parts"
        write_results(
            given.markdown, [result], describe_machine(), command, date.today().isoformat()
        )
    elif given.only == "report":
        for table in result.tables:
            print(table.title, *table.rows, sep="\n")
        print(*result.notes, sep="\n")


if __name__ == "__main__":
    main()
