"""The tables of the simulated users: Dice by rounds, and slices needed for what chance reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
from segmentation_users import CHANCE, SUGGESTED, USERS

from napari_medgs.benchmark.results import Ratio, Table

Curves = dict[str, dict[str, list[list[float]]]]  # case, user: one curve a seed
COMPARED = [user.name for user in USERS if user.name in (SUGGESTED,) or user.seeds > 1]


def curves_of(records: dict[str, Any]) -> Curves:
    """Return the curves of the cases that every user has finished."""
    found: Curves = {}
    for name, record in records.items():
        mine: dict[str, list[list[float]]] = {}
        for key, value in record.items():
            if key.startswith("user/"):
                mine.setdefault(key.split("/")[1], []).append(value)
        if all(len(mine.get(user.name, ())) >= user.seeds for user in USERS):
            found[name] = mine
    return found


def needed(curve: list[float], target: float) -> int:
    """Return after how many rounds a Dice was reached; one more than all where it was not."""
    return next((k for k, score in enumerate(curve) if score >= target), len(curve))


class UserNumbers:
    """Means over the members of a group, then over groups."""

    def __init__(self, records: dict[str, Any], groups: dict[str, list[str]]) -> None:
        curves = curves_of(records)
        self.groups = [
            [curves[name] for name in members if name in curves] for members in groups.values()
        ]
        self.groups = [group for group in self.groups if group]

    def dice(self, user: str) -> list[float]:
        """Return the mean Dice by round."""
        means = [
            np.mean([np.mean(case[user], axis=0) for case in group], axis=0)
            for group in self.groups
        ]
        return [float(v) for v in np.mean(means, axis=0)]

    def slices(self, user: str, rounds: int) -> list[float]:
        """Return by group how many slices a user needs for what chance reaches on average."""
        means = []
        for group in self.groups:
            counts = []
            for case in group:
                target = float(np.mean(case[CHANCE], axis=0)[rounds])
                counts.append(np.mean([needed(curve, target) for curve in case[user]]))
            means.append(float(np.mean(counts)))
        return means

    @property
    def rounds(self) -> int:
        """Rounds of the users who choose slices."""
        return len(self.groups[0][0][SUGGESTED][0]) - 1


def user_tables(records: dict[str, Any], groups: dict[str, list[str]]) -> list[Table]:
    """Return Dice by round, and the slices needed for what chance reaches."""
    numbers = UserNumbers(records, groups)
    if not numbers.groups:
        return []
    count = len(numbers.groups)
    curves = {user.name: numbers.dice(user.name) for user in USERS}
    width = max(len(curve) for curve in curves.values())
    rows = [
        (name, *(f"{v:.3f}" for v in curve), *("" for _ in range(width - len(curve))))
        for name, curve in curves.items()
    ]
    tables = [
        Table(
            f"Simulated users: mean Dice by rounds after the first slice, {count} cases",
            ("user", *(str(k) for k in range(width))),
            tuple(rows),
        )
    ]
    needs = []
    for rounds in range(1, numbers.rounds + 1):
        ours, theirs = (numbers.slices(user, rounds) for user in (SUGGESTED, CHANCE))
        fewer = sum(a < b for a, b in zip(ours, theirs, strict=True))
        equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
        needs.append(
            (
                rounds,
                f"{numbers.dice(CHANCE)[rounds]:.3f}",
                *(f"{np.mean(numbers.slices(user, rounds)):.2f}" for user in COMPARED),
                f"{fewer} of {count}" + (f", equal in {equal}" if equal else ""),
            )
        )
    title = (
        "Slices needed for the mean Dice of so many slices by chance (of those with objects); "
        f"{numbers.rounds + 1} where it was not reached"
    )
    columns = ("slices by chance", "Dice", *COMPARED, "suggested needs fewer in")
    return [*tables, Table(title, columns, tuple(needs))]


def user_ratios(records: dict[str, Any], groups: dict[str, list[str]]) -> list[Ratio]:
    """Return the slices needed, suggested against chance."""
    numbers = UserNumbers(records, groups)
    if not numbers.groups:
        return []
    ratios = []
    for rounds in sorted({min(k, numbers.rounds) for k in (2, 4)}):
        ours, theirs = (numbers.slices(user, rounds) for user in (SUGGESTED, CHANCE))
        fewer = sum(a <= b for a, b in zip(ours, theirs, strict=True))
        ratios.append(
            Ratio(
                f"slices for the mean Dice of {rounds} by chance",
                CHANCE,
                float(np.mean(ours)),
                float(np.mean(theirs)),
                note=f"no more needed in {fewer} of {len(ours)} cases",
            )
        )
    return ratios
