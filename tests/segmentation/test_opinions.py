"""Looks and floods count as far as left-out slices bear them out."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segmentation.prompts.markers import Evidence
from napari_medgs.segmentation.terms.calibration import CONFIDENCES, Foretold, foretell, opinions
from napari_medgs.segmentation.terms.image_features import image_features
from napari_medgs.segmentation.terms.stochastic_watershed import (
    LEAST_TOLL,
    MOST_TOLL,
    UNKNOWN_TOLL,
    Floods,
)
from napari_medgs.segmentation.terms.watershed import Basins

SHAPE = (9, 24, 24)


def evidence_of(planes, swapped=()):
    """Return strokes of two classes, one in each half, on some slices."""
    voxels, classes = [], []
    for z in planes:
        for k, column in enumerate((5, 18)):
            voxels += [[z, row, column] for row in range(4, 20)]
            classes += [k if z not in swapped else 1 - k] * 16
    empty = np.zeros(0, np.int32)
    return Evidence(
        (0, 1),
        np.array(voxels, np.int32),
        np.array(classes, np.int32),
        empty.reshape(0, 3),
        empty,
        hard=np.ones(len(classes), bool),
    )


@pytest.fixture
def halves(rng):
    data = rng.normal(0, 0.02, SHAPE)
    data[..., 12:] += 1
    features = image_features(data[None].astype(np.float32), np.ones(3))
    return features, Floods([Basins(features.metric, features.units)])


def test_what_holds_on_every_slice_counts_in_full(halves):
    appearance, flood = opinions(evidence_of((1, 4, 7)), *halves, 0)
    assert appearance.confidence == 1
    assert flood.toll == pytest.approx(MOST_TOLL, abs=0.05)
    shares = flood.shares[0][flood.basins[0]]
    assert (shares[..., :10, 0] > 0.9).all()
    assert (shares[..., 14:, 1] > 0.9).all()


def test_slices_that_contradict_each_other_take_trust_away(halves):
    appearance, flood = opinions(evidence_of((2, 6), swapped=(6,)), *halves, 0)
    assert appearance.confidence == 0
    assert flood.toll == pytest.approx(LEAST_TOLL, abs=0.05)


def test_one_slice_leaves_nothing_to_find_out(halves):
    features, floods = halves
    evidence = evidence_of((4,))
    assert foretell(evidence, features, features.at(evidence.voxels), floods, 0) is None
    appearance, flood = opinions(evidence, features, floods, 0)
    assert appearance.confidence == 1
    assert flood.toll == UNKNOWN_TOLL


def told(looks, shares, classes):
    return Foretold(np.asarray(classes), np.log(np.maximum(looks, 1e-6)), np.asarray(shares))


def test_classes_count_alike_whatever_their_strokes_lengths():
    shares = [[1.0, 0.0]] * 9 + [[1.0, 0.0]]
    assert told(shares, shares, [0] * 9 + [1]).trust() == pytest.approx(0)
    assert told(shares, shares, [0] * 10).trust() == 1


def test_looks_that_mislead_are_trusted_less_where_floods_know_better():
    # Half of class 1 looks like class 0; the floods are right everywhere.
    classes = [0] * 10 + [1] * 10
    looks = [[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 5 + [[0.9, 0.1]] * 5
    shares = [[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10
    foretold = told(looks, shares, classes)
    assert 0 < foretold.confidence(3.0) < foretold.confidence(0.0) < 1
    assert foretold.confidence(0.0) in CONFIDENCES


def test_contrasts_can_be_had_at_another_scale(rng):
    data = rng.uniform(0, 1, (2, 5, 12, 14)).astype(np.float32)
    features = image_features(data, np.array([2.0, 1.0, 1.0]))
    same = features.contrasts(1.0)
    assert np.abs(same - features.metric).max() < 0.02 * np.ptp(features.metric)
    # Steps are the units: noise that is smoothed less varies less in them.
    assert features.contrasts(0.5).std() < features.metric.std()
