"""The numbers of one mask: volumes, what the folds say, and whether the image is a usual one."""

from __future__ import annotations

from typing import Any

from napari_medgs.data.volume import Volume
from napari_medgs.learning.segmenter import Segmenter, SegmenterResult
from napari_medgs.learning.training.measure import agreement_of
from napari_medgs.learning.trust import badge_of, unlike_training
from napari_medgs.metrics.volumes import volumes_ml, voxel_counts


def summarize(segmenter: Segmenter, volume: Volume, result: SegmenterResult) -> dict[str, Any]:
    """Return what there is to say of a mask, as JSON-able values.

    Parameters
    ----------
    segmenter : Segmenter
    volume : Volume
        That was segmented.
    result : SegmenterResult
        With the folds' masks, if they are to be compared.

    Returns
    -------
    dict
        ``voxels`` and ``volume_ml`` by label value, ``seconds``; where there are folds
        ``agreement``, ``trust`` (a level) and ``calibration`` (a sentence); where the model knows
        its training images ``unlike_training``, above 1 for images unlike them.
    """
    card = segmenter.card
    counts = voxel_counts(result.labels)
    numbers: dict[str, Any] = {
        "voxels": {str(v): counts.get(v, 0) for v in card.class_values},
        "volume_ml": {str(v): n for v, n in volumes_ml(result.labels, result.grid).items()},
        "seconds": result.seconds,
    }
    if result.fold_labels:
        agreement = agreement_of(result.fold_labels, card.class_values)
        badge = badge_of(agreement, card.trust.get("agreement", {}))
        numbers |= {
            "agreement": badge.agreement,
            "trust": badge.level,
            "calibration": badge.sentence,
        }
    if card.trust.get("reference"):
        numbers["unlike_training"] = unlike_training(segmenter.inputs(volume.prepared()), card)
    return numbers
