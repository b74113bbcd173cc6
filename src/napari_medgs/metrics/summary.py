"""Scores of many cases: the mean of every label over the cases that have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from napari_medgs.metrics.evaluation import SCORES


def summarize_cases(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over cases, per label and over all labels.

    A case counts for a label that is in its segmentation or its truth. Where it is in one of them
    only, Dice, IoU and NSD are 0 and the distances do not exist: these means are over the other
    cases, and ``without_distance`` says how many are left out. [1]_

    Parameters
    ----------
    cases : mapping of str to mapping
        Results of :func:`~napari_medgs.metrics.evaluate` by the name of the case.

    Returns
    -------
    dict
        ``{"labels": {"1": {...}, ...}, "mean": {...}}``. Every label has the means of the scores
        and of ``volume_ratio``, the standard deviation over cases as ``dice_sd``, the number of
        ``cases``, and how many of them are ``missing`` (in the truth only), ``spurious`` (in the
        segmentation only) and ``without_distance``. ``mean`` has the means over the labels.

    References
    ----------
    .. [1] Maier-Hein et al., "Metrics reloaded: recommendations for image analysis validation",
       Nat. Methods 21, 2024.

    Examples
    --------
    >>> entry = {"dice": 0.5, "iou": 0.3, "hd95": 2.0, "asd": 1.0, "nsd": 0.6}
    >>> entry |= {"volume_ml": 1.0, "volume_ml_truth": 2.0, "volume_ratio": 0.5}
    >>> found = summarize_cases({"a": {"labels": {"1": entry}}})
    >>> found["labels"]["1"]["dice"], found["mean"]["cases"]
    (0.5, 1)
    """
    by_label: dict[int, list[Mapping[str, Any]]] = {}
    for case in cases.values():
        for value, entry in case["labels"].items():
            if entry["dice"] is not None:
                by_label.setdefault(int(value), []).append(entry)
    labels = {str(value): _summary(by_label[value]) for value in sorted(by_label)}
    mean: dict[str, Any] = {
        name: _mean(entry[name] for entry in labels.values()) for name in SCORES
    }
    mean["labels"], mean["cases"] = len(labels), len(cases)
    return {"labels": labels, "mean": mean}


def _summary(entries: list[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: _mean(entry[name] for entry in entries) for name in (*SCORES, "volume_ratio")
    }
    dice = [entry["dice"] for entry in entries]
    found["dice_sd"] = float(np.std(dice, ddof=1)) if len(dice) > 1 else None
    found["cases"] = len(entries)
    found["missing"] = sum(not entry["volume_ml"] for entry in entries)
    found["spurious"] = sum(not entry["volume_ml_truth"] for entry in entries)
    found["without_distance"] = sum(entry["hd95"] is None for entry in entries)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
