"""The image gradient counts less within the appearance of a class."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.term_params import CalibrationParams
from tests.segmentation.conftest import BACKGROUND, overlap


@pytest.fixture(scope="module")
def tumor():
    """A rod of two tissues, its middle darker than its shell, in noise: image, truth, field."""
    rng = np.random.default_rng(5)
    z, y, x = np.mgrid[0:40, 0:44, 0:44].astype(np.float32)
    off = np.hypot(y - 22, x - 22)
    image = np.where(off < 6, 20.0, np.where(off < 11, 100.0, 140.0)) + rng.normal(0, 35, z.shape)
    volume = Volume.from_array(image.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=2500, iterations=40))
    return volume, off < 11, field


@pytest.fixture
def prompts(tumor):
    """Strokes on three slices: the middle, a little of the shell on one side, all around."""
    drawn = np.zeros(tumor[1].shape, np.int32)
    for z in (8, 20, 32):
        drawn[z, 22, 19:26] = 1
        drawn[z, 6, 6:38] = drawn[z, 38, 6:38] = BACKGROUND
    drawn[[8, 20, 32], 22, 30:32] = 1
    return Prompts(labels=drawn, background=BACKGROUND)


def solve(tumor, prompts, **settings):
    volume, truth, field = tumor
    model = SegmentModel(volume, field, SegmentParams(**settings))
    return overlap(model.update(prompts).labels == 1, truth)


NO_DISCOUNT = SolverParams(
    calibration=CalibrationParams(gradient_discount=0.0, default_gradient_discount=0.0)
)


def test_a_rod_of_two_tissues_is_one_class(tumor, prompts):
    found = solve(tumor, prompts)
    without = solve(tumor, prompts, advanced=NO_DISCOUNT)
    assert found > 0.9
    assert found > without + 0.005


def test_without_appearance_the_gradient_counts_in_full(tumor, prompts):
    found = solve(tumor, prompts, appearance=0.0)
    assert found == solve(tumor, prompts, appearance=0.0, advanced=NO_DISCOUNT)
