"""Appearance as probabilities at any temperature."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segmentation.terms.appearance import learn_appearance

LIMITS = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)


def learned(rng, classes=(0, 1)):
    """Return samples of two appearances and what was learned from those of some classes."""
    features = np.concatenate(
        [np.clip(rng.normal(level, 0.05, (60, 2)), 0, 1) for level in (0.3, 0.7)]
    ).astype(np.float32)
    labels = np.repeat([0, 1], 60)
    on = np.isin(labels, classes)
    return features, labels, learn_appearance(features[on], labels[on], 2, (0,), LIMITS)


def test_appearance_tells_classes_apart(rng):
    features, labels, model = learned(rng)
    assert model.inverse_temperature == 1
    assert (model.log_probability(features).argmax(axis=1) == labels).all()


def test_infinite_temperature_is_uniform(rng):
    features, _, model = learned(rng)
    model.inverse_temperature = 0.0
    assert model.log_probability(features) == pytest.approx(np.log(0.5), abs=1e-5)


def test_probabilities_stay_normalised_at_any_temperature(rng):
    features, _, model = learned(rng)
    whole = model.log_probability(features)
    model.inverse_temperature = 0.35
    tempered = model.log_probability(features)
    assert np.exp(tempered).sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert (np.ptp(tempered, axis=1) < np.ptp(whole, axis=1)).all()


def test_one_class_alone_has_no_appearance(rng):
    features, _, model = learned(rng, classes=(1,))
    assert model.present == (1,)
    assert model.log_probability(features) == pytest.approx(np.log(0.5), abs=1e-5)


@pytest.mark.parametrize("samples", [1, 300, 521])
def test_leaf_fractions_are_those_of_scikit_learn(rng, samples):
    from sklearn.ensemble import ExtraTreesClassifier

    from napari_medgs.segmentation.term_params import AppearanceParams
    from napari_medgs.segmentation.terms.forest import add_leaf_fractions, train_forest

    params = AppearanceParams(trees=5)
    known = rng.normal(size=(400, 3)).astype(np.float32)
    classes = (known[:, 0] > 0) + (known[:, 1] > 1).astype(int)
    forest = train_forest(known, classes, 4, 7, params, None)
    asked = rng.normal(size=(samples, 3)).astype(np.float32)
    found = np.zeros((samples, 4), np.float32)
    add_leaf_fractions(asked, forest, 0, samples, found)
    trees = ExtraTreesClassifier(
        5, min_samples_leaf=params.min_leaf, class_weight="balanced", random_state=7
    ).fit(known, classes)
    np.testing.assert_allclose(found[:, :3], 5 * trees.predict_proba(asked), atol=1e-5)
    assert not found[:, 3].any()
