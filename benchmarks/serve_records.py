"""What has been measured of the server: continued by later runs, written after each number."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Records:
    """Records that a measurement continues.

    Attributes
    ----------
    values : dict
        By name; changed in place.
    keep : callable
        Called after each that is new.
    until : float
        ``time.monotonic()`` from which on nothing more is begun.
    """

    values: dict[str, Any]
    keep: Callable[[], None] = _nothing
    until: float = float("inf")

    @property
    def is_time_up(self) -> bool:
        """Whether nothing more is to be begun."""
        return time.monotonic() > self.until
