"""What the networks of the folds say of cases that they have not seen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.errors import Cancelled
from napari_medgs.learning.card import CaseEntry
from napari_medgs.learning.components import decide_components, keep_largest
from napari_medgs.learning.data.checks import CaseFacts, read_case
from napari_medgs.learning.polishing import decide_polishing, polish_result
from napari_medgs.learning.segmenter import Segmenter
from napari_medgs.learning.training.folds import unseen_by
from napari_medgs.learning.trust import contrast_contributions
from napari_medgs.metrics.contrasts import label_agreement

MOST_CASES, MOST_POLISHED = 60, 30
MOST_EXPLAINED, CASES_EXPLAINED = 6, 4
"""Contrasts, and cases of each fold, of which contributions are measured."""
RESAMPLES = 2000


def measure_folds(
    segmenter: Segmenter,
    facts: Sequence[CaseFacts],
    folds: Sequence[int],
    *,
    seconds: float | None = None,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> tuple[tuple[CaseEntry, ...], dict[str, Any]]:
    """Return what networks reached on the cases that they had not seen.

    Parameters
    ----------
    segmenter : Segmenter
        With the networks of the folds.
    facts : sequence of CaseFacts
    folds : sequence of int
        Of every case.
    seconds : float, optional
        Most time; cases that are not reached have no Dice.
    progress, should_stop : callable

    Returns
    -------
    entries : tuple of CaseEntry
        Of all cases, with Dice and agreement.
    components : dict
        See :func:`~napari_medgs.learning.components.decide_components`.
    """
    card, count = segmenter.card, segmenter.card.folds
    flat = card.network.ndim == 2
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in card.class_names}
    entries = [CaseEntry(one.case.name, k) for one, k in zip(facts, folds, strict=True)]
    started = time.perf_counter()
    chosen = np.random.default_rng(count).permutation(len(facts))[:MOST_CASES]
    for done, number in enumerate(chosen):
        spent = time.perf_counter() - started
        progress(ProgressEvent("measure", done, len(chosen), spent))
        if should_stop() or (seconds is not None and done >= 3 and spent > seconds):
            break
        volume, truth = read_case(facts[number].case)
        networks = [segmenter.networks[1 + k] for k in unseen_by(folds[number], count)]
        try:
            masks = [
                Segmenter(card, [network])
                .segment(volume, largest=False, should_stop=should_stop)
                .labels
                for network in networks
            ]
        except Cancelled:
            break
        there = [v for v in card.class_values if (truth == v).any()]
        single = [keep_largest(mask, there, flat=flat) for mask in masks]
        scores, alone = (
            np.mean([label_agreement(mask, truth, there) for mask in some], axis=0)
            for some in (masks, single)
        )
        for v, before, after in zip(there, scores, alone, strict=True):
            part = (keep_largest(truth, (v,), flat=flat) == v).sum() / (truth == v).sum()
            found[card.names[v]].append((float(before), float(after), float(part)))
        dice = {card.names[v]: float(s) for v, s in zip(there, scores, strict=True)}
        agreement = None
        if len(masks) == 2:
            agreement = agreement_of(masks, card.class_values)
        entries[number] = replace(entries[number], dice=dice, agreement=agreement)
    return tuple(entries), decide_components(found)


def measure_contrasts(
    segmenter: Segmenter,
    facts: Sequence[CaseFacts],
    folds: Sequence[int],
    *,
    should_stop: StopCallback,
) -> dict[str, Any]:
    """Return what every contrast contributes to every class, by networks that had not seen a case.

    Parameters
    ----------
    segmenter : Segmenter
        With the networks of the folds.
    facts : sequence of CaseFacts
    folds : sequence of int
        Of every case.
    should_stop : callable
        Once it is true, nothing is returned.

    Returns
    -------
    dict
        See :func:`~napari_medgs.learning.trust.contrast_contributions`; empty for more than
        six contrasts.
    """
    card, count = segmenter.card, segmenter.card.folds
    if len(card.channel_names) > MOST_EXPLAINED:
        return {}
    unseen = {
        k: [n for n, fold in enumerate(folds) if k in unseen_by(fold, count)][:CASES_EXPLAINED]
        for k in range(count)
    }
    read = {n: read_case(facts[n].case) for n in {n for rows in unseen.values() for n in rows}}

    def dice_without(fold: int, absent: tuple[int, ...]) -> NDArray[np.float64] | None:
        if not unseen[fold]:
            return None
        one = Segmenter(card, [segmenter.networks[1 + fold]])
        scores = []
        for number in unseen[fold]:
            volume, truth = read[number]
            mask = one.segment(volume, absent=absent, should_stop=should_stop).labels
            row = label_agreement(mask, truth, card.class_values)
            scores.append([s if (truth == v).any() else np.nan
                           for s, v in zip(row, card.class_values, strict=True)])  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a class that none of them has
            return np.asarray(np.nanmean(scores, axis=0), np.float64)

    try:
        return contrast_contributions(dice_without, count, card.channel_names, card.class_names)
    except Cancelled:
        return {}


def measure_polishing(
    segmenter: Segmenter,
    facts: Sequence[CaseFacts],
    folds: Sequence[int],
    *,
    seconds: float | None = None,
    threads: int | None = None,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> dict[str, Any]:
    """Return what polishing brings on cases that a network had not seen.

    Parameters
    ----------
    segmenter : Segmenter
        With the networks of the folds.
    facts : sequence of CaseFacts
    folds : sequence of int
        Of every case.
    seconds : float, optional
        Most time.
    threads : int, optional
        CPU threads; all by default.
    progress, should_stop : callable

    Returns
    -------
    dict
        See :func:`~napari_medgs.learning.polishing.decide_polishing`.
    """
    card, count = segmenter.card, segmenter.card.folds
    started = time.perf_counter()
    chosen = np.random.default_rng(count).permutation(len(facts))[:MOST_POLISHED]
    before: list[float] = []
    after: list[float] = []
    for done, number in enumerate(chosen):
        spent = time.perf_counter() - started
        progress(ProgressEvent("measure polishing", done, len(chosen), spent))
        if should_stop() or (seconds is not None and spent > seconds):
            break
        volume, truth = read_case(facts[number].case)
        there = [v for v in card.class_values if (truth == v).any()]
        one = Segmenter(card, [segmenter.networks[1 + unseen_by(folds[number], count)[0]]])
        try:
            plain = one.segment(volume, probabilities=True, should_stop=should_stop)
            polished = polish_result(card, volume, plain, threads=threads, should_stop=should_stop)
        except Cancelled:
            break
        before.append(float(np.mean(label_agreement(plain.labels, truth, there))))
        after.append(float(np.mean(label_agreement(polished.labels, truth, there))))
    return decide_polishing(before, after)


def agreement_of(masks: Sequence[NDArray[Any]], values: Sequence[int]) -> float:
    """Return the mean Dice of all pairs of masks, over the classes that any of them has.

    Parameters
    ----------
    masks : sequence of (Z, Y, X) ndarray
    values : sequence of int
        Label values of the classes.

    Returns
    -------
    float
        1 where all masks are empty.

    Examples
    --------
    >>> import numpy as np
    >>> agreement_of([np.array([[[1, 1, 0]]]), np.array([[[1, 1, 1]]])], (1, 2))
    0.8
    """
    found = []
    for i, one in enumerate(masks):
        for other in masks[i + 1 :]:
            there = [v for v in values if (one == v).any() or (other == v).any()]
            if there:
                found.append(float(label_agreement(one, other, there).mean()))
    return float(np.mean(found)) if found else 1.0


def dice_with_intervals(
    entries: Sequence[CaseEntry], names: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Return mean Dice by class and of all, with 95 % bootstrap intervals over the cases.

    Parameters
    ----------
    entries : sequence of CaseEntry
    names : sequence of str
        Of the classes.
    seed : int
        Of all random choices.

    Returns
    -------
    dict
        ``{"mean": {"mean": .., "low": .., "high": .., "cases": ..}, name: ..}``; empty where
        nothing was measured.

    Examples
    --------
    >>> cases = [CaseEntry("a", 0, {"liver": 0.9}), CaseEntry("b", 1, {"liver": 0.8})]
    >>> round(dice_with_intervals(cases, ["liver"])["liver"]["mean"], 3)
    0.85
    """
    found: dict[str, Any] = {}
    random = np.random.default_rng(seed)
    values = {"mean": [float(np.mean(list(e.dice.values()))) for e in entries if e.dice]}
    values |= {name: [e.dice[name] for e in entries if name in e.dice] for name in names}
    for name, scores in values.items():
        if not scores:
            continue
        array = np.array(scores)
        means = array[random.integers(len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5))
        found[name] = {
            "mean": float(array.mean()),
            "low": float(low),
            "high": float(high),
            "cases": len(array),
        }
    return found
