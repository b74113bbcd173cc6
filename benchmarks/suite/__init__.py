"""The benchmark suite: ours beside real baselines, on one machine in one run.

A case is a function that takes a :class:`Context` and returns a :class:`CaseResult`; it is listed
in :data:`suite.registry.ENTRIES` by name.
"""

from suite.registry import Context, Entry, find_data, register
from suite.results import CaseResult, Ratio, Table
from suite.runner import run_suite, side_by_side, timed

__all__ = [
    "CaseResult",
    "Context",
    "Entry",
    "Ratio",
    "Table",
    "find_data",
    "register",
    "run_suite",
    "side_by_side",
    "timed",
]
