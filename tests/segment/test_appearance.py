"""Looks count as far as left-out slices bear them out."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segment.appearance import learn_appearance

LIMITS = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)


def samples(rng, slices, shift):
    """Two classes on slices; ``shift`` moves the intensities of every other slice."""
    features, classes, groups = [], [], []
    for s in range(slices):
        for k, level in enumerate((0.3, 0.7)):
            value = level if s % 2 == 0 or not shift else 1 - level
            features.append(np.clip(rng.normal(value, 0.05, (60, 2)), 0, 1))
            classes += [k] * 60
            groups += [s] * 60
    return np.concatenate(features).astype(np.float32), np.array(classes), np.array(groups)


def learned(features, classes, groups):
    return learn_appearance(features, classes, 2, (0,), LIMITS, groups=groups)


def test_looks_that_hold_on_every_slice_count_in_full(rng):
    assert learned(*samples(rng, 4, shift=False)).confidence == 1


def test_looks_that_turn_round_from_slice_to_slice_say_nothing(rng):
    features, classes, groups = samples(rng, 2, shift=True)
    model = learned(features, classes, groups)
    assert model.confidence == 0
    assert model.log_probability(features) == pytest.approx(np.log(0.5), abs=1e-5)


def test_one_slice_cannot_be_checked(rng):
    features, classes, groups = samples(rng, 1, shift=False)
    assert learned(features, classes, groups).confidence == 1
    assert learned(features, classes, None).confidence == 1


def test_probabilities_stay_normalised_at_any_confidence(rng):
    features, classes, groups = samples(rng, 3, shift=False)
    model = learned(features, classes, groups)
    model.confidence = 0.35
    assert np.exp(model.log_probability(features)).sum(axis=1) == pytest.approx(1, abs=1e-4)
