"""Terms are weighted by their skill on held-out slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.term_params import CalibrationParams, WatershedParams
from napari_medgs.segmentation.terms.calibration import (
    HeldOutPredictions,
    fit_terms,
    leave_one_slice_out,
)
from napari_medgs.segmentation.terms.image_features import image_features
from napari_medgs.segmentation.terms.stochastic_watershed import StochasticWatershed
from napari_medgs.segmentation.terms.watershed import CatchmentBasins

SHAPE = (9, 24, 24)


def markers_of(planes, swapped=()):
    """Return strokes of two classes, one in each half, on some slices."""
    voxels, classes = [], []
    for z in planes:
        for k, column in enumerate((5, 18)):
            voxels += [[z, row, column] for row in range(4, 20)]
            classes += [k if z not in swapped else 1 - k] * 16
    empty = np.zeros(0, np.int32)
    return Markers(
        (0, 1),
        np.array(voxels, np.int32),
        np.array(classes, np.int32),
        empty.reshape(0, 3),
        empty,
        user_marked=np.ones(len(classes), bool),
    )


@pytest.fixture
def halves(rng):
    data = rng.normal(0, 0.02, SHAPE)
    data[..., 12:] += 1
    features = image_features(data[None].astype(np.float32), np.ones(3))
    return features, StochasticWatershed(
        [CatchmentBasins(features.guide, features.relative_spacing)]
    )


def test_what_holds_on_every_slice_counts_in_full(halves):
    appearance, votes = fit_terms(markers_of((1, 4, 7)), *halves, 0)
    assert appearance.inverse_temperature == 1
    assert votes.weight == pytest.approx(WatershedParams().max_weight, abs=0.05)
    fractions = votes.fractions[0][votes.basins[0]]
    assert (fractions[..., :10, 0] > 0.9).all()
    assert (fractions[..., 14:, 1] > 0.9).all()


def test_slices_that_contradict_each_other_lower_both_weights(halves):
    appearance, votes = fit_terms(markers_of((2, 6), swapped=(6,)), *halves, 0)
    assert appearance.inverse_temperature == 0
    assert votes.weight == pytest.approx(WatershedParams().min_weight, abs=0.05)


def test_one_slice_leaves_nothing_to_hold_out(halves):
    features, watershed = halves
    markers = markers_of((4,))
    assert (
        leave_one_slice_out(markers, features, features.at(markers.voxels), watershed, 0) is None
    )
    appearance, votes = fit_terms(markers, features, watershed, 0)
    assert appearance.inverse_temperature == 1
    # Parts of the strokes are found from the others.
    assert (votes.weight == np.float32(WatershedParams().default_weight)).all()


def test_votes_count_less_against_a_class_that_they_do_not_find_along_its_stroke(rng):
    data = rng.normal(0, 1, SHAPE)
    data[..., 18:] += 40
    features = image_features(data[None].astype(np.float32), np.ones(3))
    watershed = StochasticWatershed([CatchmentBasins(features.guide, features.relative_spacing)])
    # Class 1 lies in noise, with the background close by on both sides.
    columns, rows = {11: 0, 12: 1, 13: 0, 21: 2}, range(4, 20)
    voxels = np.array([[4, r, c] for c in columns for r in rows], np.int32)
    classes = np.repeat(list(columns.values()), len(rows)).astype(np.int32)
    markers = replace(
        markers_of((4,)), values=(0, 1, 2), voxels=voxels, classes=classes,
        user_marked=np.ones(len(classes), bool),
    )  # fmt: skip
    own = WatershedParams()
    weight = fit_terms(markers, features, watershed, 0)[1].weight
    assert weight[1] < 0.9 * own.default_weight
    assert weight[0] == weight[2] == np.float32(own.default_weight)
    # A single marker leaves nothing to hold out.
    single = markers.subset((classes != 2) | (np.cumsum(classes == 2) == 1))
    weight = fit_terms(single, features, watershed, 0)[1].weight
    assert weight[2] == np.float32(own.unsure_weight)
    # Balls around clicks are no strokes along a class.
    clicked = fit_terms(replace(markers, clicked=True), features, watershed, 0)[1]
    assert clicked.weight == own.default_weight
    full = replace(markers, fully_labeled={0: np.array([4])})
    assert fit_terms(full, features, watershed, 0)[1].weight == own.default_weight


@pytest.mark.parametrize(("k", "checked"), [(0, True), (1, False)])
def test_strokes_are_checked_against_themselves_where_no_class_is_marked_elsewhere(
    rng, k, checked
):
    data = rng.normal(0, 0.02, SHAPE)
    data[:, 12:] += 1  # both classes have both tissues
    features = image_features(data[None].astype(np.float32), np.ones(3))
    watershed = StochasticWatershed([CatchmentBasins(features.guide, features.relative_spacing)])
    both = markers_of((4, 7))
    markers = both.subset((both.voxels[:, 0] == 4) | (both.classes == k))
    assert len(markers.annotated_slices()[1]) == 1
    appearance, votes = fit_terms(markers, features, watershed, 0)
    assert (appearance.inverse_temperature < 1) == checked
    assert (np.ndim(votes.weight) == 1) == checked


def test_appearance_that_misleads_along_a_stroke_counts_less_on_one_slice(rng):
    data = rng.normal(0, 0.02, SHAPE)
    data[:, 12:] += 1  # both classes have both tissues
    features = image_features(data[None].astype(np.float32), np.ones(3))
    watershed = StochasticWatershed([CatchmentBasins(features.guide, features.relative_spacing)])
    appearance, _ = fit_terms(markers_of((4,)), features, watershed, 0)
    assert appearance.inverse_temperature < 1


def test_strokes_are_parted_along_their_length():
    markers = markers_of((4,))
    part = markers.stroke_parts(4)
    assert part[markers.classes == 1].tolist() in (
        [k // 4 for k in range(16)],
        [3 - k // 4 for k in range(16)],
    )
    few = markers.subset(np.arange(len(part)) < 18)
    assert sorted(few.stroke_parts(4)[few.classes == 1].tolist()) == [0, 2]
    alone = markers.subset(np.arange(len(part)) < 17)
    assert alone.stroke_parts(4)[alone.classes == 1].tolist() == [0]


def test_slices_with_the_background_alone_in_common_tell_nothing_of_classes(halves):
    features, watershed = halves
    markers = markers_of((2, 6))
    on_other = (markers.voxels[:, 0] == 6) & (markers.classes == 1)
    markers = replace(markers, values=(0, 1, 2), classes=np.where(on_other, 2, markers.classes))
    assert (
        leave_one_slice_out(markers, features, features.at(markers.voxels), watershed, 0) is None
    )


def predicted(probability, fractions, classes):
    return HeldOutPredictions(
        np.asarray(classes), np.log(np.maximum(probability, 1e-6)), np.asarray(fractions)
    )


def test_skill_is_balanced_over_classes():
    fractions = [[1.0, 0.0]] * 9 + [[1.0, 0.0]]
    assert predicted(fractions, fractions, [0] * 9 + [1]).skill() == pytest.approx(0)
    assert predicted(fractions, fractions, [0] * 10).skill() == 1


def test_misleading_appearance_gets_a_higher_temperature_beside_the_watershed():
    # Half of class 1 has the appearance of class 0; the watershed is right everywhere.
    classes = [0] * 10 + [1] * 10
    probability = [[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 5 + [[0.9, 0.1]] * 5
    fractions = [[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10
    held_out = predicted(probability, fractions, classes)
    assert 0 < held_out.inverse_temperature(3.0) < held_out.inverse_temperature(0.0) < 1
    assert held_out.inverse_temperature(0.0) in CalibrationParams().inverse_temperatures


def test_contrasts_can_be_had_at_another_scale(rng):
    data = rng.uniform(0, 1, (2, 5, 12, 14)).astype(np.float32)
    features = image_features(data, np.array([2.0, 1.0, 1.0]))
    same = features.guide_at_scale(1.0)
    assert np.abs(same - features.guide).max() < 0.02 * np.ptp(features.guide)
    # Differences are the unit: noise that is smoothed less varies less in them.
    assert features.guide_at_scale(0.5).std() < features.guide.std()


@pytest.mark.parametrize(
    ("image", "noisy"), [("noise", True), ("blurred", False), ("sharp", False), ("flat", False)]
)
def test_contrasts_with_noise_are_told_from_clean_ones(rng, image, noisy):
    noise = rng.normal(0, 1, (5, 24, 24))
    sharp = np.zeros_like(noise)
    sharp[:, 6:18, 6:18] = 20
    images = {
        "noise": noise,
        "blurred": gaussian_filter(noise, 1),
        "sharp": sharp + 0.2 * noise,
        "flat": sharp,
    }
    features = image_features(images[image][None].astype(np.float32), np.ones(3))
    assert features.noisy == (noisy,)
    fine = features.guide_at_scale(1.0, 0.0)
    np.testing.assert_array_equal(fine, features.guide_at_scale(1.0 if noisy else 0.0))
