"""Leaks through a neck along the slice axis: from one disc of a stack to the next."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentParams, segment
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.solver.necks import first_neck, nodes_per_slice
from tests.segmentation.conftest import overlap

FREE = SegmentParams(advanced=SolverParams(neck_ratio=0.0))


@pytest.mark.parametrize(
    ("profile", "place"),
    [
        ([80, 80, 78, 82, 80, 79], None),  # a tube
        ([80, 60, 40, 20, 5, 0, 0], None),  # an end
        ([80, 82, 9, 4, 12, 78, 80], 3),
        ([80, 82, 9, 4, 12, 78, 3, 80], 3),  # the first of two
        ([80, 82, 9, 4, 12, 30, 28, 2], None),  # what follows is a tail
        ([20, 21, 2, 1, 3, 20, 21], None),  # too few nodes to tell
    ],
)
def test_a_neck_is_where_a_section_breaks_off_and_grows_again(profile, place):
    assert first_neck(np.array(profile, float), 0.3) == place


def test_a_neck_right_after_the_last_stroke_is_found_by_the_sections_before():
    profile = np.array([20.0, 4, 12, 78, 80])
    assert first_neck(profile, 0.3) is None
    assert first_neck(profile, 0.3, known=80.0) == 1


def test_nodes_between_slices_count_for_both():
    position = np.array([-0.4, 0.25, 1.5, 2.75, 3.4])
    np.testing.assert_allclose(nodes_per_slice(position, 4, 0.0), [1.75, 0.75, 0.75, 1.75])
    assert nodes_per_slice(position, 4, 1.0).sum() == pytest.approx(5)


@pytest.fixture(scope="module")
def stack():
    """Three like discs with a bridge along their rim: image, labels of the middle one, field."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[0:33, 0:40, 0:40].astype(np.float32)
    disc = (z + 1) % 12 > 2
    body = np.hypot(y - 20, x - 20) < 13
    image = 60 + 40 * ((body & disc) | (np.hypot(y - 31, x - 20) < 3))
    labels = (body & disc & (np.abs(z - 16) < 6)).astype(np.uint8)
    volume = Volume.from_array((image + rng.normal(0, 5, z.shape)).astype(np.float32))
    return volume, labels, fit_for_segmentation(volume, FitParams(gaussians=5000, iterations=10))


def strokes_on(labels, slices):
    marks = np.full(labels.shape, -1, np.int16)
    for z in slices:
        marks[z, 20, 10:31] = 1
        marks[z, 3, 3:37] = marks[z, 3:37, 3] = marks[z, 37, 3:37] = 0
    return marks


@pytest.mark.parametrize("slices", [(16,), (15, 17, 20)])
def test_a_disc_does_not_leak_over_a_bridge_into_the_next(stack, slices):
    volume, labels, field = stack
    prompts = Prompts(labels=strokes_on(labels, slices), unlabeled=-1)
    mask = segment(volume, prompts, field=field).labels == 1
    assert overlap(mask, labels == 1) > 0.9
    leaking = segment(volume, prompts, FREE, field=field).labels == 1
    assert overlap(leaking, labels == 1) < 0.8


def test_strokes_on_both_sides_of_a_neck_keep_both(stack):
    volume, labels, field = stack
    marks = strokes_on(labels, (16, 28))
    mask = segment(volume, Prompts(labels=marks, unlabeled=-1), field=field).labels == 1
    assert mask[16, 10:28, 20].mean() > 0.9
    assert mask[28, 10:28, 20].mean() > 0.9
