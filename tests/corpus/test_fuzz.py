"""Damaged files of every format: read or refused in one line, within time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_damaged_files_are_read_or_refused():
    """In a process of its own, whose memory is limited and which a crash may end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus.fuzz", "--count", "8", "--seed", "7"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    totals = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(totals) >= 20
    faults = [fault for total in totals for fault in total["faults"]]
    assert not faults, "\n".join(faults)
