"""A small scene with a fitted field that all segmentation tests share."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import SegmentModel
from napari_medgs.segmentation.api import fit_for_segmentation

BACKGROUND = 9


def overlap(guess, truth):
    return 2 * (guess & truth).sum() / max(guess.sum() + truth.sum(), 1)


def balls(shape, rng):
    """Three balls, two bright ones of one class far apart would be islands: labels and image."""
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint8)
    for value, center, radius in ((1, (8, 14, 14), 7), (2, (8, 14, 34), 7), (1, (8, 36, 34), 5)):
        inside = sum((a - c) ** 2 for a, c in zip((1.5 * z, y, x), (12, *center[1:]), strict=True))
        labels[inside < radius**2] = value
    image = np.array([50.0, 110.0, 160.0])[labels] + rng.normal(0, 4, shape)
    return labels, image.astype(np.float32)


@pytest.fixture(scope="session")
def ball_scene():
    labels, image = balls((17, 48, 48), np.random.default_rng(1))
    volume = Volume.from_array(image, spacing=(1.5, 1, 1))
    field = fit_for_segmentation(volume, FitParams(gaussians=2000, iterations=40))
    return volume, labels, field


@pytest.fixture
def model(ball_scene):
    volume, _, field = ball_scene
    return SegmentModel(volume, field)


@pytest.fixture
def ball_strokes(ball_scene):
    """Strokes on the middle slice: both classes (not the lone ball) and background around."""
    drawn = np.zeros(ball_scene[1].shape, np.int32)
    drawn[8, 14, 11:18] = 1
    drawn[8, 14, 31:38] = 2
    drawn[8, 2, 3:45] = BACKGROUND
    drawn[8, 24, 3:45] = BACKGROUND
    drawn[8, 3:24, 24] = BACKGROUND
    return drawn
