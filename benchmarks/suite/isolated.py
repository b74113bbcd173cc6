"""Measure time and peak memory of a fit in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from napari_medgs.errors import MedGSError

STARTUP_BYTES = 500_000_000


def allowed_bytes(voxels: int, channels: int) -> int:
    """Return the peak memory that a fit may need: 12 bytes x voxels x (channels + 2) + 500 MB."""
    return 12 * voxels * (channels + 2) + STARTUP_BYTES


def run_isolated(task: dict[str, Any], timeout: float = 900) -> dict[str, Any]:
    """Run a task of :mod:`suite.worker` in a fresh process.

    Parameters
    ----------
    task : dict
        JSON-able; see the worker.
    timeout : float
        Seconds.

    Returns
    -------
    dict
        The worker's answer.

    Raises
    ------
    MedGSError
        When the process fails; with the last line that it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "suite.worker"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MedGSError(f"A benchmark process failed (status {done.returncode}): {last}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far.

    Not ``ru_maxrss`` on Linux: that one starts at the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
