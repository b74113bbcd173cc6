"""What a benchmark case returns: ratios, tables, notes and plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_medgs.errors import MedGSError


class BenchmarkError(MedGSError):
    """A benchmark failed, or fell behind its stored results."""


@dataclass(frozen=True)
class Ratio:
    """Ours against one baseline on one measure.

    Attributes
    ----------
    what : str
        The task and measure, "T1 182 x 218 x 182 to 36 dB, seconds" say.
    baseline : str
        What it is compared with.
    ours, theirs : float
        The two measurements, in one unit, from one run on one machine.
    bound : {"", ">", "<"}
        ">" where the baseline had not arrived when its time was up: the ratio is more than that.
    better : {"lower", "higher"}
        Whether less (seconds, bytes) or more (Dice, dB) is better; the ratio is above 1 where
        ours is better.
    note : str
        Settings of the baseline, what it reached.
    """

    what: str
    baseline: str
    ours: float
    theirs: float
    bound: str = ""
    better: str = "lower"
    note: str = ""

    @property
    def value(self) -> float:
        """The ratio itself: above 1 where ours is better."""
        up, down = self.theirs, self.ours
        if self.better == "higher":
            up, down = down, up
        return up / down if down else float("nan")

    def __str__(self) -> str:
        digits = 3 if self.value < 10 else 2 if self.value < 100 else 0
        text = f"{self.value:.{digits}g}" if digits else f"{self.value:,.0f}"
        return f"{'> ' if self.bound == '>' else self.bound}{text} x"


@dataclass(frozen=True)
class Table:
    """One table of a case; cells may be numbers or text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass
class CaseResult:
    """What one case measured.

    Attributes
    ----------
    name : str
        The case, as on the command line.
    title : str
        A headline.
    ratios : list of Ratio
        Shown first.
    tables : list of Table
    notes : list of str
        How it was measured; one paragraph each.
    numbers : dict
        Everything worth keeping in the JSON file.
    """

    name: str
    title: str
    ratios: list[Ratio] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values (numbers that are not finite become None)."""
        return {
            "name": self.name,
            "title": self.title,
            "ratios": [
                {
                    "what": r.what,
                    "baseline": r.baseline,
                    "ours": plain(r.ours),
                    "theirs": plain(r.theirs),
                    "ratio": plain(r.value),
                    "bound": r.bound,
                    "better": r.better,
                    "note": r.note,
                }
                for r in self.ratios
            ],
            "tables": [
                {"title": t.title, "columns": list(t.columns), "rows": plain(t.rows)}
                for t in self.tables
            ],
            "notes": self.notes,
            "numbers": plain(self.numbers),
        }


def plain(value: Any) -> Any:
    """Return nested values as JSON knows them."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def median(values: Sequence[float]) -> float:
    """Return the median of a few measurements as a plain float."""
    return float(np.median(np.asarray(values, float)))
