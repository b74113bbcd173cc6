"""From trained weights to a segmenter whose card says what it reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.learning.card import CaseEntry, SegmenterCard
from napari_medgs.learning.data.checks import CaseFacts
from napari_medgs.learning.segmenter import Segmenter
from napari_medgs.learning.training.measure import (
    dice_with_intervals,
    measure_contrasts,
    measure_folds,
    measure_polishing,
)
from napari_medgs.learning.training.params import LearnParams
from napari_medgs.learning.trust import calibrate

if TYPE_CHECKING:
    from napari_medgs.learning.networks.features import FrozenFeatures


def segmenter_of(
    states: Sequence[dict[str, Any]],
    card: SegmenterCard,
    facts: Sequence[CaseFacts],
    folds: Sequence[int],
    training: dict[str, Any],
    reference: dict[str, Any] | None,
    frozen: FrozenFeatures | None,
) -> Segmenter:
    """Return a segmenter of trained weights, on which nothing was measured yet.

    Parameters
    ----------
    states : sequence of dict
        Weights of the network of all cases first, then those of the folds.
    card : SegmenterCard
        Of the untrained model.
    facts : sequence of CaseFacts
    folds : sequence of int
        Of every case; -1 without folds.
    training : dict
        Settings and numbers for the card.
    reference : dict, optional
        Describes the training images.
    frozen : FrozenFeatures, optional
    """
    from napari_medgs.learning.networks.segmenter import build_segmenter

    networks = []
    for state in states:
        network = build_segmenter(card.network, frozen=frozen)
        network.load_state_dict(state)
        networks.append(network)
    done = card.with_numbers(
        cases=tuple(CaseEntry(one.case.name, k) for one, k in zip(facts, folds, strict=True)),
        folds=len(networks) - 1,
        parameters=sum(p.numel() for p in networks[0].parameters()),
        training=training,
        trust={"reference": reference} if reference else {},
    )
    return Segmenter(done, networks)


def measured(
    segmenter: Segmenter,
    facts: Sequence[CaseFacts],
    folds: Sequence[int],
    params: LearnParams,
    *,
    device: str,
    left: Callable[[], float | None],
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> Segmenter:
    """Return a segmenter whose card has what the folds say of cases they had not seen.

    Parameters
    ----------
    segmenter : Segmenter
    facts : sequence of CaseFacts
    folds : sequence of int
    params : LearnParams
    device : str
        Where the folds are measured.
    left : callable
        () -> the seconds that are left, or None.
    progress, should_stop : callable
    """
    card = segmenter.card
    if not card.folds:
        return segmenter
    segmenter.to(device)
    entries, components = measure_folds(
        segmenter, facts, folds, seconds=left(), progress=progress, should_stop=should_stop
    )
    trust = {**card.trust, "agreement": calibrate(entries)}
    if components:
        trust["components"] = components
    if len(card.channel_names) > 1:
        trust["contrasts"] = measure_contrasts(segmenter, facts, folds, should_stop=should_stop)
    if params.polish:
        trust["polishing"] = measure_polishing(
            segmenter, facts, folds, seconds=left(), threads=params.threads,
            progress=progress, should_stop=should_stop,
        )  # fmt: skip
    segmenter.to("cpu")
    dice = dice_with_intervals(entries, card.class_names, params.seed)
    done = card.with_numbers(trust=trust, cases=entries, dice=dice)
    return Segmenter(done, segmenter.networks)
