"""Thick slices that look like their neighbors: paths count them as near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_medgs.data.volume import Volume
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams, fit_for_segmentation
from napari_medgs.segmentation.advanced import GraphParams, SolverParams
from napari_medgs.segmentation.prompts.kept_labels import KeptLabels
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.terms.image_features import ImageFeatures, image_features
from napari_medgs.segmentation.terms.near_slices import slices_are_near
from tests.segmentation.conftest import overlap

MIDDLE = 5
SHARE = GraphParams().near_slices


def layers(change: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return twelve slices of wavy layers with speckle, as of OCT, and the layers.

    ``change`` says how fast layers move from slice to slice.
    """
    rng = np.random.default_rng(0)
    z, y, x = np.indices((12, 64, 64))
    depth = y - (14 + 3 * np.sin(x / 9 + change * (z - MIDDLE) / 6))
    truth = np.digitize(depth, (0, 11, 20, 32)).astype(np.uint8) % 4
    image = np.array([30.0, 90.0, 50.0, 110.0])[truth]
    image *= gaussian_filter(rng.gamma(1.2, 1 / 1.2, image.shape), (0, 0.5, 0.6))
    return image.astype(np.float32), truth


def strokes() -> np.ndarray:
    """Return a line along the middle of every layer in one slice; 9 is background."""
    drawn = np.zeros((12, 64, 64), np.uint8)
    columns = np.arange(10, 54)
    top = 14 + 3 * np.sin(columns / 9)
    for value, depth in ((9, -7), (1, 5), (2, 15), (3, 26), (9, 39)):
        drawn[MIDDLE, np.round(top + depth).astype(int), columns] = value
    return drawn


def markers() -> Markers:
    drawn = strokes()
    voxels = np.argwhere(drawn).astype(np.int32)
    classes = (drawn[drawn > 0] % 9).astype(np.int32)
    none = np.zeros(0, np.int32)
    return Markers((0, 1, 2, 3), voxels, classes, none.reshape(0, 3), none,
                   user_marked=np.ones(len(classes), np.bool_))  # fmt: skip


def features(image: np.ndarray, distance: float = 25.0) -> ImageFeatures:
    return image_features(image[None], np.array([distance, 1.0, 1.0]))


def test_layers_that_go_on_are_followed() -> None:
    image, truth = layers()
    volume = Volume.from_array(image, spacing=(0.1, 0.004, 0.004)).prepared()
    field = fit_for_segmentation(volume)
    found = []
    for share in (0.0, SHARE):
        advanced = SolverParams(graph=GraphParams(near_slices=share))
        model = SegmentModel(volume, field, SegmentParams(advanced=advanced))
        labels = model.update(Prompts(labels=strokes(), background=9)).labels
        found.append(overlap(labels == 1, truth == 1))
    assert found[1] > found[0] + 0.03
    assert found[1] > 0.9


def test_paths_count_the_distance_of_what_is_drawn() -> None:
    image = features(layers()[0])
    assert image.path_spacing.tolist() == [25, 1, 1]
    assert image.weighed(None, 3.0).path_spacing.tolist() == [3, 1, 1]
    assert image.weighed(None, 40.0).path_spacing.tolist() == [25, 1, 1]
    assert image.relative_spacing.tolist() == [25, 1, 1]


@pytest.mark.parametrize(
    ("change", "distance", "near"), [(1, 25, True), (8, 20, False), (1, 7.9, False), (0, 16, True)]
)
def test_slices_are_near_that_differ_less_than_pixels(
    change: float, distance: float, near: bool
) -> None:
    image = features(layers(change)[0], distance)
    assert slices_are_near(image, markers(), SHARE) == near
    assert not slices_are_near(image, markers(), 0.0)


def test_noise_alone_does_not_tell() -> None:
    truth = layers(8)[1]
    clean = np.array([30.0, 90.0, 50.0, 110.0])[truth]
    for noise in (0, 10, 30):
        noisy = clean + np.random.default_rng(1).normal(0, noise, clean.shape)
        assert not slices_are_near(features(noisy.astype(np.float32), 20), markers(), SHARE)


def test_slices_of_another_orientation_and_masks_tell_nothing() -> None:
    image, drawn = features(layers()[0]), markers()
    turned = replace(drawn, voxels=np.ascontiguousarray(drawn.voxels[:, [1, 0, 2]]))
    assert not slices_are_near(image, turned, SHARE)
    shape = image.guide.shape[1:]
    kept = KeptLabels(np.zeros(shape, np.bool_), np.zeros(shape, np.uint8))
    assert not slices_are_near(image, replace(drawn, kept=kept), SHARE)
    alone = drawn.subset(drawn.classes == 0)
    assert not slices_are_near(image, alone, SHARE)
    one = features(layers()[0][MIDDLE : MIDDLE + 1])
    on_one = replace(drawn, voxels=drawn.voxels - np.array([MIDDLE, 0, 0], np.int32))
    assert not slices_are_near(one, on_one, SHARE)


def test_missing_values_do_not_count() -> None:
    image = layers(8)[0]
    missing = np.zeros((1, *image.shape), np.bool_)
    missing[0, [MIDDLE - 1, MIDDLE + 1]] = True
    filled = image.copy()
    filled[[MIDDLE - 1, MIDDLE + 1]] = image[MIDDLE]
    spacing = np.array([25.0, 1.0, 1.0])
    without = image_features(filled[None], spacing)
    assert slices_are_near(without, markers(), SHARE)
    assert not slices_are_near(replace(without, missing=missing), markers(), SHARE)
