"""When not to trust a mask: agreement of the folds, its calibration, images of another kind.

The networks of the folds are asked, too; where their masks differ, the mask is likely wrong. What
an agreement is worth is measured on the training's own cases, each by networks that had not seen
it: "9 of 10 cases with such an agreement had a Dice above 0.8". An image whose intensities and
texture are unlike those of all training cases gets a warning of its own, as networks can agree on
a wrong answer there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.classification.novelty import Reference, describe, make_reference_of
from napari_medgs.errors import FileError
from napari_medgs.learning.card import CaseEntry, SegmenterCard

LEAST_IN_BAND = 5
"""Cases of a band at least, where there are two bands or three."""
CONFIDENT = 0.9
"""Part of a band's cases, as nearly as can be, that had a Dice above what is said of it."""
FAILED = 0.6
"""Dice below which a mask counts as failed."""
WIDEST = 48
"""Voxels along each axis of the small image that is described."""
LOWEST, HIGHEST = -3.0, 5.0
"""Standardized intensities that become 0 and 1 for the description."""


@dataclass(frozen=True)
class Badge:
    """What the folds' agreement on one image says, in words.

    Attributes
    ----------
    level : {"high", "medium", "low", "below", "unknown"}
        "below": less than on any case that was measured; "unknown": nothing was measured.
    agreement : float
    sentence : str
    """

    level: str
    agreement: float
    sentence: str


def calibrate(entries: Sequence[CaseEntry]) -> dict[str, Any]:
    """Return what agreements were worth on cases that the networks had not seen.

    Parameters
    ----------
    entries : sequence of CaseEntry
        Those without Dice or agreement are left out.

    Returns
    -------
    dict
        ``cases``; ``bands`` from low to high agreement, each with ``level``, ``from``, ``cases``,
        ``above`` of them with a Dice above ``dice``; ``correlation`` (Spearman's) of agreement and
        Dice; ``auc`` with which low agreement tells cases of a Dice below 0.6, where there are
        some. Empty where nothing was measured.

    Examples
    --------
    >>> cases = [CaseEntry(str(k), 0, {"a": 0.5 + k / 50}, 0.6 + k / 50) for k in range(20)]
    >>> [(b["level"], b["cases"], b["dice"]) for b in calibrate(cases)["bands"]]
    [('low', 6, 0.49), ('medium', 7, 0.61), ('high', 7, 0.75)]
    """
    known = [
        (float(e.agreement), float(np.mean(list(e.dice.values()))))
        for e in entries
        if e.agreement is not None and e.dice
    ]
    if not known:
        return {}
    table = np.array(sorted(known))
    count = len(table)
    number = 3 if count >= 3 * LEAST_IN_BAND else 2 if count >= 2 * LEAST_IN_BAND else 1
    edges = [count * k // number for k in range(number + 1)]
    levels = {1: ["medium"], 2: ["low", "high"], 3: ["low", "medium", "high"]}[number]
    bands = []
    for level, start, stop in zip(levels, edges[:-1], edges[1:], strict=True):
        dice = np.sort(table[start:stop, 1])
        # The case that a tenth of the band is below, and a whole hundredth under its Dice.
        reached = dice[min(len(dice) - 1, int(np.floor((1 - CONFIDENT) * len(dice))))]
        limit = max(0.0, np.ceil(100 * reached - 1e-9) / 100 - 0.01)
        bands.append(
            {
                # Never better than what it was worth, however the bands compare.
                "level": level if limit >= FAILED else "low",
                "from": float(table[start, 0]),
                "cases": len(dice),
                "above": int((dice > limit).sum()),
                "dice": round(float(limit), 2),
            }
        )
    found: dict[str, Any] = {"cases": count, "bands": bands}
    if count >= LEAST_IN_BAND and np.ptp(table[:, 0]) > 0 and np.ptp(table[:, 1]) > 0:
        from scipy.stats import spearmanr

        found["correlation"] = float(spearmanr(table[:, 0], table[:, 1]).statistic)
    failed = table[:, 1] < FAILED
    if failed.any() and not failed.all():
        from scipy.stats import mannwhitneyu

        u = mannwhitneyu(table[~failed, 0], table[failed, 0]).statistic
        found["auc"] = float(u / (failed.sum() * (~failed).sum()))
    return found


def badge_of(agreement: float, calibration: dict[str, Any]) -> Badge:
    """Return what an agreement on a new image says.

    Parameters
    ----------
    agreement : float
        Mean Dice of all pairs of the folds' masks.
    calibration : dict
        From :func:`calibrate`.

    Returns
    -------
    Badge

    Raises
    ------
    FileError
        When the calibration is damaged.

    Examples
    --------
    >>> bands = [{"level": "medium", "from": 0.7, "cases": 10, "above": 9, "dice": 0.8}]
    >>> badge_of(0.9, {"cases": 10, "bands": bands}).sentence
    '9 of 10 cases with such an agreement had a Dice above 0.80.'
    """
    if not calibration:
        return Badge("unknown", agreement, "What such an agreement is worth was not measured.")
    try:
        bands = [
            (str(b["level"]), float(b["from"]), int(b["cases"]), int(b["above"]), float(b["dice"]))
            for b in calibration["bands"]
        ]
        cases = int(calibration["cases"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError("The model's calibration of agreements is damaged.") from error
    reached = [band for band in bands if agreement >= band[1]]
    if not reached:
        sentence = f"Less than on any of the {cases} cases measured: expect a wrong mask."
        return Badge("below", agreement, sentence)
    level, _, count, above, dice = reached[-1]
    sentence = f"{above} of {count} cases with such an agreement had a Dice above {dice:.2f}."
    return Badge(level, agreement, sentence)


def describe_input(image: Floats) -> NDArray[np.float64]:
    """Return the description (D,) of a network's input, for :func:`unlike_training`.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray
        Standardized intensities.
    """
    small: NDArray[Any] = np.asarray(image)
    for axis in range(1, 4):
        step = -(-small.shape[axis] // WIDEST)
        if step > 1:
            edges = np.arange(0, small.shape[axis], step)
            sizes = np.diff([*edges, small.shape[axis]])
            shape = [-1 if a == axis else 1 for a in range(4)]
            small = np.add.reduceat(small, edges, axis=axis) / sizes.reshape(shape)
    if small.shape[1] == 1:
        small = small[:, 0]
    # Descriptions have cells; an axis of fewer voxels is repeated.
    least = [max(1, -(-8 // n)) for n in small.shape[1:]]
    for axis, times in enumerate(least, 1):
        small = np.repeat(small, times, axis=axis)
    scaled = np.clip((small - LOWEST) / (HIGHEST - LOWEST), 0, 1)
    return describe(scaled[None])[0]


def reference_of(described: Sequence[NDArray[np.float64]]) -> dict[str, Any] | None:
    """Return the reference of the training cases' descriptions; None for fewer than twenty."""
    if len({len(d) for d in described}) != 1:
        return None
    reference = make_reference_of(np.stack(described))
    return None if reference is None else reference.to_dict()


def unlike_training(image: Floats, card: SegmenterCard) -> float | None:
    """Return how unlike an image is to the training cases: above 1 as few of them are.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray
        What :meth:`Segmenter.inputs` gives.
    card : SegmenterCard

    Returns
    -------
    float or None
        None where the model was trained on too few cases to tell.

    Raises
    ------
    FileError
        When the reference is damaged.
    """
    record = card.trust.get("reference")
    if not record:
        return None
    reference, described = Reference.from_dict(record), describe_input(image)
    if len(described) != len(reference.mean):
        raise FileError("The model's reference of training cases is damaged.")
    return float(reference.novelty_of(described[None])[0])


def contrast_contributions(
    dice_without: Callable[[int, tuple[int, ...]], NDArray[np.float64] | None],
    folds: int,
    contrasts: Sequence[str],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return the contrasts' Shapley values of a trained model, by class.

    Parameters
    ----------
    dice_without : callable
        Takes a fold's network and the contrasts that are left out; returns the mean Dice of each
        class on cases that the network had not seen, None where there are none.
    folds : int
    contrasts, classes : sequence of str

    Returns
    -------
    dict
        By class: ``shapley`` by contrast, the mean over folds; ``rank_variance`` over folds.
    """
    from napari_medgs.metrics.contrasts import contrast_subsets, rank_variance, shapley_of

    count = len(contrasts)
    subsets = contrast_subsets(count)
    found = []
    for fold in range(folds):
        known: dict[tuple[int, ...], NDArray[np.float64]] = {}
        for subset in subsets:
            absent = tuple(c for c in range(count) if c not in subset)
            dice = dice_without(fold, absent)
            if dice is None:
                break
            known[subset] = np.nan_to_num(dice)
        if len(known) == len(subsets):
            found.append(shapley_of(known, count))
    if not found:
        return {}
    table = np.stack(found)  # folds, contrasts, classes
    return {
        name: {
            "shapley": dict(zip(contrasts, table[:, :, k].mean(0).tolist(), strict=True)),
            "rank_variance": rank_variance(table[:, :, k]) if len(table) > 1 else None,
        }
        for k, name in enumerate(classes)
    }
