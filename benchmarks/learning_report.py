"""Tables of the runs of :mod:`learning`: means, paired differences, costs, trust."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.results import CaseResult, Ratio, Table

BASE = "unet"
RESAMPLES = 4000
FAILED = 0.6
"""A case with a lower mean Dice counts as failed."""
Key = tuple[int, str, str, int]


def case_means(run: dict[str, Any], what: str) -> NDArray[np.float64]:
    """Return the mean over the classes for every test case, in the order of their names."""
    scores = run["scores"]
    rows = np.array([scores[name][what] for name in sorted(scores)], float)
    known = np.isfinite(rows)
    # A class without a mask has no distance.
    return np.where(known, rows, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)


def paired(
    ours: dict[int, NDArray[Any]], theirs: dict[int, NDArray[Any]], seed: int = 0
) -> tuple[float, float, float] | None:
    """Return the mean difference of Dice and its 95 % interval, over seeds and cases.

    Parameters
    ----------
    ours, theirs : dict of int to (N,) ndarray
        By seed, the test cases in one order.
    """
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    table = np.stack([ours[s] - theirs[s] for s in seeds])
    random = np.random.default_rng(seed)
    rows = random.integers(len(seeds), size=(RESAMPLES, len(seeds), 1))
    columns = random.integers(table.shape[1], size=(RESAMPLES, 1, table.shape[1]))
    means = table[rows, columns].mean(axis=(1, 2))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(table.mean()), float(low), float(high)


def area_under_curve(score: NDArray[Any], failed: NDArray[Any]) -> float | None:
    """Return the area under the ROC curve of a score that is low where a case fails."""
    if not failed.any() or failed.all():
        return None
    from scipy.stats import mannwhitneyu

    u = mannwhitneyu(score[~failed], score[failed]).statistic
    return float(u / (failed.sum() * (~failed).sum()))


def group(runs: list[dict[str, Any]]) -> dict[Key, dict[str, dict[int, dict[str, Any]]]]:
    """Return runs by cases, budget, accelerator and folds, then by variant and seed."""
    found: dict[Key, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        planned = f"{run['steps_wanted']:g} steps" if run.get("steps_wanted") else ""
        budget = planned or f"{run['seconds_wanted']:g} s"
        key = (run["cases"], budget, run["accelerator"], run["folds"])
        found[key][run["variant"]][run["seed"]] = run
    return found


def report(runs: list[dict[str, Any]], failed: list[str]) -> CaseResult:
    """Return tables of all runs."""
    result = CaseResult("learn", "trained segmenters: slots and MONAI on 40 test hippocampi")
    for (cases, budget, accelerator, folds), variants in sorted(group(runs).items()):
        base = {s: case_means(r, "dice") for s, r in variants.get(BASE, {}).items()}
        rows = []
        order = [BASE, *sorted(v for v in variants if v != BASE)]
        for variant in order:
            seeds = variants.get(variant, {})
            if not seeds:
                continue
            rows.append(_row(variant, seeds, base))
            ours = {s: case_means(r, "dice") for s, r in seeds.items()}
            if variant.startswith("monai") and base:
                difference = paired(base, ours)
                assert difference is not None or not set(base) & set(ours)
                if difference:
                    result.ratios.append(
                        Ratio(
                            f"{cases} cases, {budget} on {accelerator}, Dice",
                            variant,
                            float(np.mean([d.mean() for d in base.values()])),
                            float(np.mean([d.mean() for d in ours.values()])),
                            better="higher",
                            note="difference {:+.3f} ({:+.3f} to {:+.3f})".format(*difference),
                        )
                    )
        title = f"{cases} cases, {budget} a run on {accelerator}"
        title += f", {folds} folds" if folds else ""
        result.tables.append(Table(title, COLUMNS, tuple(rows)))
        if folds:
            trust = _trust(variants)
            if trust.rows:
                result.tables.append(trust)
    result.notes.append(
        'Dice and HD95 are means over two classes, 40 test cases and the seeds; "largest" is HD95 '
        "of the largest component of each class alone, where that was measured; a difference is "
        "that to unet with the same seed, with its 95 % interval over seeds and cases. CPU "
        "seconds are those of the training; memory is the process's peak."
    )
    result.notes += [f"Not done: {text}." for text in failed]
    result.numbers["runs"] = [{k: v for k, v in r.items() if k != "scores"} for r in runs]
    return result


COLUMNS = (
    "variant", "seeds", "Dice", "by seed", "HD95 mm", "largest mm", "difference", "95 %", "steps",
    "CPU s", "s/step", "parameters", "MiB", "ms/case",
)  # fmt: skip


def _distance(runs: list[dict[str, Any]], what: str) -> str:
    """Return the mean distance of all cases in words; empty where a run has none."""
    if not all(what in entry for run in runs for entry in run["scores"].values()):
        return ""
    far = np.concatenate([case_means(run, what) for run in runs])
    far = far[np.isfinite(far)]
    return f"{far.mean():.2f}" if len(far) else ""


def _row(
    variant: str, seeds: dict[int, dict[str, Any]], base: dict[int, NDArray[Any]]
) -> tuple[Any, ...]:
    """Return the row of a variant."""
    dice = {s: case_means(r, "dice") for s, r in sorted(seeds.items())}
    far, single = (_distance(list(seeds.values()), what) for what in ("hd95", "hd95_single"))
    difference = paired(dice, base) if variant != BASE else None

    def mean(key: str) -> float:
        return float(np.mean([r[key] for r in seeds.values()]))

    return (
        variant,
        len(seeds),
        f"{np.mean([d.mean() for d in dice.values()]):.3f}",
        " ".join(f"{d.mean():.3f}" for d in dice.values()),
        far,
        single,
        f"{difference[0]:+.3f}" if difference else "",
        f"{difference[1]:+.3f} to {difference[2]:+.3f}" if difference else "",
        round(mean("steps")),
        round(mean("cpu_seconds")),
        f"{mean('cpu_seconds') / max(mean('steps'), 1):.3f}",
        round(mean("parameters")),
        round(mean("peak_bytes") / 2**20),
        round(1000 * mean("seconds_case")),
    )


def _trust(variants: dict[str, dict[int, dict[str, Any]]]) -> Table:
    """Return how well the agreement of the folds tells Dice and failures."""
    from scipy.stats import spearmanr

    rows = []
    for variant, seeds in variants.items():
        agreement, dice = [], []
        for run in seeds.values():
            for entry in run["scores"].values():
                if "agreement" in entry:
                    agreement.append(entry["agreement"])
                    dice.append(float(np.mean(entry["dice"])))
        if len(agreement) < 2:
            continue
        a, d = np.array(agreement), np.array(dice)
        area = area_under_curve(a, d < FAILED)
        rows.append(
            (
                variant,
                len(a),
                f"{spearmanr(a, d).statistic:.2f}",
                int((d < FAILED).sum()),
                "" if area is None else f"{area:.3f}",
            )
        )
    columns = ("variant", "predictions", "Spearman with Dice", "Dice below .6", "AUC")
    return Table("Agreement of the folds", columns, tuple(rows))
