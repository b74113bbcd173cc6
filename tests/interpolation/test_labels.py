"""Labels between labeled slices."""

import numpy as np
import pytest

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.interpolation import (
    interpolate_labels,
    interpolate_probabilities,
    interpolate_shape,
)
from napari_medgs.interpolation.signed_distance import signed_distances, smooth_distances


def disc(cx, cy, r, size=64):
    y, x = np.mgrid[:size, :size]
    return np.hypot(x - cx, y - cy) <= r


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def tube(depth=13, speed=1.8, r=7.0):
    return np.stack([disc(18 + speed * z, 30 + 0.5 * speed * z, r) for z in range(depth)])


def test_signed_distances_of_a_disc():
    d = signed_distances(disc(32, 32, 10)[None])[0]
    assert d.max() == 6
    assert d.min() == -6
    assert d[32, 32 + 8] == pytest.approx(2.5, abs=0.8)
    assert d[32, 32 + 13] == pytest.approx(-2.5, abs=0.8)
    wide = signed_distances(disc(32, 32, 10)[None], (1.0, 2.0))[0]
    assert wide[32, 32 + 12] < d[32, 32 + 12] - 1


def test_smoothing_keeps_areas():
    masks = np.stack([disc(20, 20, 2.2), disc(30, 32, 9), np.zeros((64, 64), bool)])
    smooth = smooth_distances(signed_distances(masks), masks)
    assert ((smooth > 0).sum(axis=(1, 2)) == masks.sum(axis=(1, 2))).all()


def test_flow_follows_a_moving_disc():
    truth = tube()
    kept = [0, 4, 8, 12]
    left = [z for z in range(13) if z not in kept]
    scores = {}
    for method in ("flow", "linear", "cubic"):
        guess = interpolate_labels(truth.astype(np.uint8), kept, method=method)
        assert guess.dtype == np.uint8
        np.testing.assert_array_equal(guess[kept], truth[kept])
        scores[method] = np.mean([dice(guess[z] > 0, truth[z]) for z in left])
    assert scores["flow"] > 0.97
    assert scores["flow"] > scores["linear"] + 0.03
    assert scores["flow"] > scores["cubic"] + 0.02


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_irregular_slices_on_any_axis(axis):
    truth = tube(15, speed=1.0)
    kept = [3, 8, 10, 14]
    labels = np.where(np.isin(np.arange(15), kept)[:, None, None], truth * 7, 99)
    guess = interpolate_labels(np.moveaxis(labels, 0, axis), kept, slice_axis=axis)
    guess = np.moveaxis(guess, axis, 0)
    assert not guess[:3].any()
    assert set(np.unique(guess)) == {0, 7}
    assert dice(guess[3:] == 7, truth[3:]) > 0.97


def test_default_slices_are_those_with_labels():
    truth = tube(9, speed=0.5)
    sparse = np.zeros(truth.shape, np.int32)
    sparse[[1, 4, 7]] = truth[[1, 4, 7]]
    guess = interpolate_labels(sparse)
    np.testing.assert_array_equal(guess, interpolate_labels(sparse, [1, 4, 7]))
    assert guess[1:8].any(axis=(1, 2)).all()
    assert not guess[[0, 8]].any()


def test_shape_ends_half_way_to_an_empty_slice():
    truth = np.zeros((13, 64, 64), np.uint8)
    truth[4:9] = disc(32, 32, 9)
    guess = interpolate_labels(truth, [0, 4, 8, 12])
    areas = (guess > 0).sum(axis=(1, 2))
    full = disc(32, 32, 9).sum()
    assert areas[[0, 1, 11, 12]].max() == 0
    np.testing.assert_allclose(areas[3:10], full, rtol=0.12)


def test_no_ghosts_where_a_shape_stops_and_another_starts():
    labels = np.zeros((21, 64, 64), np.uint8)
    labels[:8, 10:20, 10:20] = 1
    labels[13:, 44:54, 44:54] = 2
    guess = interpolate_labels(labels, list(range(0, 21, 4)))
    assert not (guess[:, 26:38, 26:38] > 0).any()
    assert not (guess[12:] == 1).any()
    assert not (guess[:9] == 2).any()
    assert (guess[8] == 0).all()


def test_touching_classes_leave_no_gap():
    labels = np.zeros((9, 64, 64), np.int16)
    for z in range(9):
        body = disc(32, 32, 20)
        labels[z][body] = 5
        labels[z][body & (np.arange(64) > 24 + 2 * z)[None, :]] = 3
    guess = interpolate_labels(labels, [0, 4, 8])
    assert dice(guess > 0, labels > 0) > 0.995
    assert dice(guess == 3, labels == 3) > 0.97
    assert dice(guess == 5, labels == 5) > 0.97


def test_probabilities_agree_with_labels():
    labels = np.zeros((9, 64, 64), np.uint8)
    labels[:, 20:40, 10:30] = 2
    labels[:, 20:40, 30:50] = 4
    values, chance = interpolate_probabilities(labels, [0, 4, 8])
    assert values == [0, 2, 4]
    np.testing.assert_allclose(chance.sum(axis=0), 1, atol=1e-5)
    winner = np.asarray(values)[chance.argmax(axis=0)]
    np.testing.assert_array_equal(winner, interpolate_labels(labels, [0, 4, 8]))
    assert chance[1, 4, 30, 15] > 0.99
    assert 0.2 < chance[1, 2, 30, 29] < 0.8


def test_image_pulls_the_outline_where_it_is_informative():
    rng = np.random.default_rng(0)
    truth = np.stack([disc(32, 32, 10 + 4 * np.sin(1.3 * z)) for z in range(25)])
    kept = list(range(0, 25, 3))
    left = [z for z in range(25) if z % 3]
    sharp = truth + 0.1 * rng.standard_normal(truth.shape)
    plain = interpolate_labels(truth.astype(np.uint8), kept)
    helped = interpolate_labels(truth.astype(np.uint8), kept, image=sharp)
    assert dice(helped[left] > 0, truth[left]) > dice(plain[left] > 0, truth[left]) + 0.005
    useless = rng.standard_normal(truth.shape)
    same = interpolate_labels(truth.astype(np.uint8), kept, image=useless)
    assert dice(same[left] > 0, plain[left] > 0) > 0.99


def test_shape_between_gives_distances_at_any_position():
    masks = np.stack([disc(30, 32, 8), disc(34, 32, 8)])
    middle = interpolate_shape(masks, [0.0, 10.0], [5.0])[0]
    assert dice(middle > 0, disc(32, 32, 8)) > 0.97
    assert middle[32, 32] > 4


def test_one_slice_stays_alone():
    labels = np.zeros((5, 32, 32), np.uint8)
    labels[2, 8:16, 8:16] = 1
    np.testing.assert_array_equal(interpolate_labels(labels), labels)


def test_whole_slices_labelled():
    labels = np.ones((5, 16, 16), np.uint8)
    assert (interpolate_labels(labels, [0, 4]) == 1).all()


def test_errors():
    labels = np.zeros((5, 16, 16), np.uint8)
    with pytest.raises(LabelError, match="nothing"):
        interpolate_labels(labels)
    labels[1, 3:6, 3:6] = 1
    with pytest.raises(LabelError):
        interpolate_labels(labels.astype(np.float32))
    with pytest.raises(ParameterError):
        interpolate_labels(labels, [0, 7])
    with pytest.raises(ParameterError):
        interpolate_labels(labels, slice_axis=3)
    with pytest.raises(GeometryError):
        interpolate_labels(labels, [0, 1], image=np.zeros((4, 16, 16)))
    with pytest.raises(GeometryError):
        interpolate_labels(labels, [0, 1], spacing=(1, 0, 1))
    with pytest.raises(ParameterError):
        interpolate_labels(labels, [0, 1], method="magic")
    with pytest.raises(ParameterError):
        interpolate_probabilities(labels, [0, 1], width=0)


def test_weights_are_those_of_the_ridge_logistic_regression(rng):
    """At the optimum the gradient of the penalized log-likelihood is zero."""
    from napari_medgs.interpolation.intensity_model import RIDGE, _logistic_weights

    features = rng.normal(0, 2, (4000, 3))
    inside = rng.random(4000) < 1 / (1 + np.exp(-features @ [0.8, 0.4, 0.1]))
    weights = _logistic_weights(features, inside)
    probability = 1 / (1 + np.exp(-features @ weights))
    gradient = features.T @ (probability - inside) / len(inside) + RIDGE * weights
    assert np.abs(gradient).max() < 1e-6
    np.testing.assert_array_equal(_logistic_weights(features, inside | True), [1, 0, 0])
