"""Which unlabeled image to annotate next: the one on which the folds agree least."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_medgs._util.naming import naming
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.errors import Cancelled, MedGSError, ParameterError
from napari_medgs.io.cases import Case
from napari_medgs.learning.segmenter import Segmenter
from napari_medgs.learning.training.measure import agreement_of


@dataclass(frozen=True)
class RankedCase:
    """An unlabeled image and how far the folds agree on it.

    Attributes
    ----------
    case : Case
    agreement : float, optional
        Mean Dice of all pairs of the folds' masks; None where it failed.
    error : str
        Why it failed.
    """

    case: Case
    agreement: float | None
    error: str = ""


def rank_cases(
    segmenter: Segmenter,
    cases: Sequence[Case],
    *,
    reading: Mapping[str, Any] | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> list[RankedCase]:
    """Order unlabeled images by how little the folds agree on them.

    Parameters
    ----------
    segmenter : Segmenter
        With folds.
    cases : sequence of Case
        From :func:`~napari_medgs.io.cases.find_cases`.
    reading : mapping, optional
        Options of :func:`~napari_medgs.io.read_volumes`.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    list of RankedCase
        Least agreement first; images that cannot be segmented at the end.

    Raises
    ------
    ParameterError
        When the model has no folds.
    Cancelled
        When ``should_stop`` returned True.
    """
    from napari_medgs.io import read_volumes

    if segmenter.card.folds < 2:
        raise ParameterError(
            "The model has no folds that could disagree; train it with folds to know which image "
            "to annotate next."
        )
    started = time.perf_counter()
    folds = Segmenter(segmenter.card, segmenter.networks[1:])
    found: list[RankedCase] = []
    for case in cases:
        if should_stop():
            raise Cancelled("Canceled; the images were not ordered.")
        spent = time.perf_counter() - started
        progress(ProgressEvent("images", len(found), len(cases), spent))
        try:
            with naming(image=case.images):
                volume = read_volumes(case.images, **(reading or {}))
                result = folds.segment(volume, folds=True, should_stop=should_stop)
            masks = (result.labels, *result.fold_labels)
            agreement = agreement_of(masks, segmenter.card.class_values)
            found.append(RankedCase(case, agreement))
        except Cancelled:
            raise
        except MedGSError as error:
            found.append(RankedCase(case, None, str(error)))
    return sorted(found, key=lambda one: 2.0 if one.agreement is None else one.agreement)
