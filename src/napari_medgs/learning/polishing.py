"""Polishing: the solver that strokes use decides where a model is unsure, without any stroke.

It draws borders along the edges of the image. That helps a weak network much and a good one little
or not, and takes longer than the network, so that cross-validation decides it: cases that a
network has not seen are polished, and the card says what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_medgs._util.progress import (
    ProgressCallback,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.data.volume import Volume
from napari_medgs.errors import LabelError
from napari_medgs.learning.card import SegmenterCard
from napari_medgs.learning.components import move_probabilities
from napari_medgs.learning.segmenter import SegmenterResult

RESAMPLES = 2000
LEAST_CASES = 4
"""Cases below which nothing is decided."""


def polish_result(
    card: SegmenterCard,
    volume: Volume,
    result: SegmenterResult,
    *,
    threads: int | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> SegmenterResult:
    """Return a mask with polished borders; probabilities follow where its class changed.

    Parameters
    ----------
    card : SegmenterCard
    volume : Volume
        That was segmented.
    result : SegmenterResult
        With probabilities.
    threads : int, optional
        CPU threads; all by default.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    SegmenterResult
        The masks of the folds stay as they are; so does that of the model where too little of it
        is sure for the solver to start from.

    Raises
    ------
    MedGSError
        When there are no probabilities, or the solver refuses the image; ``Cancelled``.
    """
    from napari_medgs.segmentation import Prompts, SegmentParams, segment

    probabilities = np.array(result.probability())
    index = probabilities.argmax(axis=0)
    if index.min() == index.max():
        return result  # there is no border
    try:
        solved = segment(
            volume,
            Prompts(prior=probabilities),
            SegmentParams(threads=threads),
            progress=progress,
            should_stop=should_stop,
        ).labels
    except LabelError:  # fewer than two classes have a voxel that is sure
        return result
    labels = np.array([0, *card.class_values], result.labels.dtype)[solved]
    changed = solved != index
    move_probabilities(probabilities, changed, solved[changed])
    return replace(result, labels=labels, probabilities=probabilities)


def decide_polishing(
    before: Sequence[float], after: Sequence[float], seed: int = 0
) -> dict[str, Any]:
    """Return what polishing brought on cases that the networks had not seen.

    Parameters
    ----------
    before, after : sequence of float
        Mean Dice of every case without and with it.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``cases``; the mean ``difference`` with its 95 % interval ``low`` to ``high``; ``worse``,
        the number of cases that lost; ``used``, whether the model does it from now on: where the
        whole interval is above 0. Empty without cases.

    Examples
    --------
    >>> decide_polishing([0.7, 0.8, 0.75, 0.8], [0.72, 0.81, 0.77, 0.82])["used"]
    True
    """
    if not before:
        return {}
    gain = np.subtract(after, before)
    random = np.random.default_rng(seed)
    means = gain[random.integers(len(gain), size=(RESAMPLES, len(gain)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {
        "cases": len(gain),
        "difference": float(gain.mean()),
        "low": float(low),
        "high": float(high),
        "worse": int((gain < 0).sum()),
        "used": bool(low > 0 and len(gain) >= LEAST_CASES),
    }


def is_polished(card: SegmenterCard) -> bool:
    """Tell whether a model's masks are polished unless the user says otherwise."""
    found = card.trust.get("polishing")
    return isinstance(found, dict) and found.get("used") is True


def describe_polishing(card: SegmenterCard) -> str:
    """Return in words what cross-validation said of polishing; empty where it was not tried."""
    found: Any = card.trust.get("polishing")
    try:
        count = int(found["cases"])
        text = (
            f"{float(found['difference']):+.3f} Dice ({float(found['low']):+.3f} to "
            f"{float(found['high']):+.3f}; {count} case{'s' * (count != 1)})"
        )
    except (KeyError, TypeError, ValueError):
        return ""
    if is_polished(card):
        return f"{text}, used"
    few = f": that takes {LEAST_CASES} cases or more" if count < LEAST_CASES else ""
    return f"{text}, not used{few}"
