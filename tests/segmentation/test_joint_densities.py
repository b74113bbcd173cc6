"""Classes that only a combination of contrasts tells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation
from napari_medgs.segmentation.terms.joint_densities import learn_joint_densities
from tests.segmentation.conftest import overlap

BACKGROUND = 9
SHAPE = (9, 40, 40)


def test_a_class_that_only_the_difference_of_two_contrasts_tells():
    """A lesion in which one contrast rises and the other falls, both by less than they vary."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[tuple(slice(n) for n in SHAPE)]
    lesion = ((z - 4) / 4) ** 2 + ((y - 20) / 9) ** 2 + ((x - 20) / 9) ** 2 < 1
    texture = gaussian_filter(rng.normal(0, 1, SHAPE), (1, 2.5, 2.5))
    texture *= 30 / texture.std()
    data = np.stack([100 + texture + 15 * lesion, 100 + texture - 15 * lesion])
    data += rng.normal(0, 5, data.shape)
    volume = Volume.from_array(data.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=1200, iterations=20))
    strokes = np.zeros(SHAPE, np.int32)
    for plane in (2, 4, 6):
        strokes[plane, 20, 16:25] = 1
        strokes[plane, 8, 6:35] = strokes[plane, 33, 6:35] = strokes[plane, 6:35, 8] = BACKGROUND
    model = SegmentModel(volume, field)
    found = model.update(Prompts(labels=strokes, background=BACKGROUND)).labels == 1
    assert overlap(found, lesion) > 0.7


@pytest.mark.parametrize("factor", [1, 3])
def test_copies_of_contrasts_change_no_joint_density(factor):
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 150)
    common = rng.normal(0, 0.2, 300)
    first = common + 0.05 * classes + rng.normal(0, 0.02, 300)
    second = common - 0.05 * classes + rng.normal(0, 0.02, 300)
    features = np.stack([first, second, factor * first, second], axis=1).astype(np.float32)
    logs = []
    for columns in ([0, 1], [0, 1, 2, 3]):
        found = learn_joint_densities(features, classes, np.array(columns), 0)
        out = np.zeros((300, 3), np.float32)
        found.add_log_density(features, 1.0, out)
        logs.append(out)
    assert (logs[0][:, :2].argmax(axis=1) == classes).mean() > 0.95
    np.testing.assert_allclose(logs[0] - logs[0][:, 2:], logs[1] - logs[1][:, 2:], atol=0.02)
