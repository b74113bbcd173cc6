"""The tables of the simulated users: Dice by rounds, against chance, and slices needed.

Intervals are of 95 %, by bootstrap over cases of the paired differences of each case's mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation_users import ANYWHERE, CHANCE, SUGGESTED, USERS, WORST
from suite.results import Ratio, Table

Curves = dict[str, dict[str, list[list[float]]]]  # case, user: one curve a seed
COMPARED = (SUGGESTED, ANYWHERE, WORST)
DRAWS = 10_000


def curves_of(records: dict[str, Any]) -> Curves:
    """Return the curves of the cases that every user has finished.

    All of one user are cut to the rounds that the shortest has; of several runs of one seed the
    longest counts.
    """
    found: Curves = {}
    for name, record in records.items():
        mine: dict[str, dict[str, list[float]]] = {}
        for key, value in record.items():
            if key.startswith("user/"):
                _, user, _, seed = key.split("/")
                seeds = mine.setdefault(user, {})
                seeds[seed] = max(seeds.get(seed, []), value, key=len)
        if all(len(mine.get(user.name, ())) >= user.seeds for user in USERS):
            found[name] = {user.name: list(mine[user.name].values()) for user in USERS}
    for user in USERS:
        most = min((len(c) for case in found.values() for c in case[user.name]), default=0)
        for case in found.values():
            case[user.name] = [curve[:most] for curve in case[user.name]]
    return found


def needed(curve: list[float], target: float) -> float:
    """Return after how many rounds a mean curve reaches a Dice, between rounds by straight lines.

    Infinite where it does not.
    """
    for k, score in enumerate(curve):
        if score >= target:
            before = curve[k - 1] if k else score
            return k - (score - target) / (score - before) if score > before else float(k)
    return float("inf")


class UserNumbers:
    """Means over the members of a group, then over groups."""

    def __init__(self, records: dict[str, Any], groups: dict[str, list[str]]) -> None:
        curves = curves_of(records)
        self.groups = [
            [curves[name] for name in members if name in curves] for members in groups.values()
        ]
        self.groups = [group for group in self.groups if group]

    def by_group(self, user: str) -> list[NDArray[np.float64]]:
        """Return every group's mean Dice by round."""
        return [
            np.mean([np.mean(case[user], axis=0) for case in group], axis=0)
            for group in self.groups
        ]

    def dice(self, user: str) -> list[float]:
        """Return the mean Dice by round."""
        return [float(v) for v in np.mean(self.by_group(user), axis=0)]

    def gain(self, user: str, over: str, rounds: int) -> tuple[float, float, float, int]:
        """Return by how much the mean Dice of rounds 1 .. ``rounds`` is above another user's.

        Returns
        -------
        mean, low, high : float
            With the interval's ends.
        more : int
            Groups in which it is above.
        """
        pairs = zip(self.by_group(user), self.by_group(over), strict=True)
        each = np.array([(a - b)[1 : rounds + 1].mean() for a, b in pairs])
        draws = np.random.default_rng(0).choice(each, (DRAWS, len(each))).mean(axis=1)
        low, high = np.percentile(draws, (2.5, 97.5))
        return float(each.mean()), float(low), float(high), int(np.count_nonzero(each > 0))

    def higher(self, rounds: int) -> int:
        """Return in how many groups suggested slices have the higher Dice after some rounds."""
        pairs = zip(self.by_group(SUGGESTED), self.by_group(CHANCE), strict=True)
        return sum(bool(ours[rounds] > theirs[rounds]) for ours, theirs in pairs)

    @property
    def rounds(self) -> int:
        """Rounds of the users who choose slices."""
        return len(self.groups[0][0][SUGGESTED][0]) - 1


def user_tables(records: dict[str, Any], groups: dict[str, list[str]]) -> list[Table]:
    """Return Dice by round, what is gained over chance, and the slices needed for as much."""
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
    chance = curves[CHANCE]
    needs = []
    for rounds in range(1, numbers.rounds + 1):
        counts = [needed(curves[user], chance[rounds]) for user in COMPARED]
        cells = [f"{n:.1f}" if np.isfinite(n) else f"> {numbers.rounds}" for n in counts]
        more = f"{numbers.higher(rounds)} of {count}"
        needs.append((rounds, f"{chance[rounds]:.3f}", *cells, more))
    gains = []
    for user in (SUGGESTED, WORST):
        for over in (CHANCE, ANYWHERE):
            for rounds in sorted({min(k, numbers.rounds) for k in (3, numbers.rounds)}):
                mean, low, high, more = numbers.gain(user, over, rounds)
                interval = f"{low:+.3f} to {high:+.3f}"
                gains.append((user, over, rounds, f"{mean:+.3f}", interval, f"{more} of {count}"))
    tables.append(
        Table(
            "Mean Dice of the rounds up to some, above a user's who chooses by chance",
            ("user", "above", "rounds", "difference", "95 % of bootstraps over cases", "above in"),
            tuple(gains),
        )
    )
    title = "Slices after the first one that are needed for the mean Dice of slices by chance"
    columns = (CHANCE, "Dice", *COMPARED, "suggested has higher Dice in")
    return [*tables, Table(title, columns, tuple(needs))]


def user_ratios(records: dict[str, Any], groups: dict[str, list[str]]) -> list[Ratio]:
    """Return the slices needed, suggested against chance."""
    numbers = UserNumbers(records, groups)
    if not numbers.groups:
        return []
    ratios = []
    for rounds in sorted({min(k, numbers.rounds) for k in (3, 6)}):
        target = numbers.dice(CHANCE)[rounds]
        count = needed(numbers.dice(SUGGESTED), target)
        late = not np.isfinite(count)
        ratios.append(
            Ratio(
                f"slices for the mean Dice of {rounds} by chance",
                CHANCE,
                float(numbers.rounds if late else count),
                float(rounds),
                note=f"mean Dice {target:.3f}; suggested slices have the higher Dice in "
                f"{numbers.higher(rounds)} of {len(numbers.groups)} cases"
                + ("; not reached" if late else ""),
            )
        )
    return ratios
