"""Region growing on the unsmoothed image, alone and within the narrow band."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.solver.region_growing import GrownLabels, grow_regions
from napari_medgs.segmentation.term_params import RegionGrowingParams
from tests.segmentation.conftest import overlap

ALONE = SegmentParams(
    advanced=SolverParams(region_growing=RegionGrowingParams(weight=0.0, default_weight=0.0))
)


def grow(image, band, marks, decided, best=None, strengths=None, leak_factor=1):
    """Grow in a mask; marks: 0 none, k + 1 for class k. Return the labels and what was reached."""
    voxels = np.argwhere(band).astype(np.int32)
    slot = np.full(band.shape, -1, np.int32)
    slot[band] = np.arange(len(voxels))
    marked = np.flatnonzero(marks[band]).astype(np.int32)
    classes = marks[band][marked].astype(np.int32) - 1
    best = np.zeros(band.shape, np.float32) if best is None else best
    before = decided.astype(np.uint8)
    found, reached = grow_regions(
        image, strengths, slot, voxels, marked, classes, before, best, leak_factor
    )
    labels, there = np.zeros(band.shape, np.uint8), np.zeros(band.shape, bool)
    labels[band], there[band] = found, reached
    return labels, there


def path_costs(image, band, marks, decided, count):
    """Costs of every class by SciPy: marked and decided voxels are the seeds."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    index = np.arange(band.size).reshape(band.shape)
    levels = image.astype(np.int64)
    rows, columns, costs = [], [], []
    for step in np.ndindex(3, 3, 3):
        a, b = [], []
        for s, n in zip(step, band.shape, strict=True):
            a.append(slice(max(0, 1 - s), n - max(0, s - 1)))
            b.append(slice(max(0, s - 1), n - max(0, 1 - s)))
        here, there = index[tuple(a)].ravel(), index[tuple(b)].ravel()
        away = np.abs(levels[(slice(None), *a)] - levels[(slice(None), *b)]).max(axis=0) >> 6
        keep = (here != there) & band.ravel()[there]  # nothing leads out of the band
        rows.append(here[keep])
        columns.append(there[keep])
        costs.append(away.ravel()[keep] + 1e-9)  # SciPy takes zeros for no edge
    graph = csr_matrix(
        (np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))),
        shape=(band.size, band.size),
    )
    seeds = np.where(band, marks.astype(int) - 1, decided)
    out = np.full((count, band.size), np.inf)
    for k in range(count):
        if (seeds == k).any():
            out[k] = dijkstra(graph, indices=np.flatnonzero(seeds == k), min_only=True)
    return np.round(out).reshape(count, *band.shape)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2), st.tuples(*[st.integers(1, 7)] * 3))
def test_labels_come_from_the_nearest_seed(seed, channels, shape):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 2**16, (channels, *shape)).astype(np.uint16)
    band = rng.uniform(size=shape) < 0.8
    marks = np.where(band, rng.choice([0, 1, 2, 3], shape, p=[0.85, 0.05, 0.05, 0.05]), 0)
    decided = rng.integers(0, 3, shape)
    labels, reached = grow(image, band, marks, decided)
    costs = path_costs(image, band, marks, decided, 3)
    least = costs.min(axis=0)
    np.testing.assert_array_equal(reached[band], np.isfinite(least)[band])
    own = np.take_along_axis(costs, labels[None].astype(int), 0)[0]
    np.testing.assert_array_equal(own[reached], least[reached])  # of equal ones either may win
    chosen = marks > 0
    np.testing.assert_array_equal(labels[chosen], marks[chosen] - 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.tuples(*[st.integers(1, 7)] * 3))
def test_far_from_its_own_voxels_a_class_must_be_nearer_by_a_factor(seed, factor, shape):
    from scipy.ndimage import maximum_filter

    rng = np.random.default_rng(seed)
    image = rng.integers(0, 2**16, (1, *shape)).astype(np.uint16)
    band = rng.uniform(size=shape) < 0.9
    marks = np.where(band, rng.choice([0, 1, 2, 3], shape, p=[0.85, 0.05, 0.05, 0.05]), 0)
    decided = rng.integers(0, 3, shape) * (rng.uniform(size=shape) < 0.1)
    labels, there = grow(image, band, marks, decided)
    same, reached = grow(image, band, marks, decided, leak_factor=factor)
    np.testing.assert_array_equal(same, labels)
    background, *others = path_costs(image, band, marks, decided, 3)
    least = np.min(others, axis=0) * factor
    for k in (1, 2):
        far = (labels == k) & there & ~maximum_filter(decided == k, 3)
        assert reached[far & (least < background)].all()
        there &= ~far
    np.testing.assert_array_equal(reached & there, there)


def test_a_leak_far_from_a_class_does_not_count():
    """A step of 4 levels from the class, of 5 from the background, to the same gray."""
    image = np.full((1, 1, 1, 9), 64 * 104, np.uint16)
    image[..., :2], image[..., -2:] = 64 * 100, 64 * 109
    band, none = np.ones((1, 1, 9), bool), np.zeros((1, 1, 9), int)
    marks, seen = none.copy(), none.copy()
    marks[..., 0], marks[..., -1] = 2, 1
    labels, reached = grow(image, band, marks, none)
    assert labels[0, 0].tolist() == [1] * 7 + [0] * 2
    assert reached.all()
    labels, reached = grow(image, band, marks, none, leak_factor=2)
    assert reached[0, 0].tolist() == [True] * 2 + [False] * 5 + [True] * 2
    seen[..., 4] = 1  # the class was there before
    assert grow(image, band, marks, seen, leak_factor=2)[1][0, 0, 3:6].all()
    image[..., -2:] = 64 * 140
    assert grow(image, band, marks, none, leak_factor=2)[1].all()


def test_nothing_grows_from_voxels_without_a_score_or_channels_that_do_not_count():
    image = np.zeros((2, 1, 1, 7), np.uint16)
    image[0, ..., 5:] = 60_000
    image[1, ..., :3] = 60_000
    band = np.ones((1, 1, 7), bool)
    band[..., [0, 6]] = False
    marks, decided = np.zeros((1, 1, 7), int), np.array([[[1, 0, 0, 0, 0, 0, 2]]])
    weak = np.array([0.01, 1], np.float32)
    assert grow(image, band, marks, decided)[0][0, 0, 1:6].tolist()[-1] == 2
    labels, _ = grow(image, band, marks, decided, strengths=weak)
    assert labels[0, 0, 1:6].tolist() == [1, 1, 2, 2, 2]
    none = np.zeros((1, 1, 7), np.float32)
    none[..., 6] = np.finfo(np.float32).min
    labels, reached = grow(image, band, marks, decided, none)
    assert labels[0, 0, 1:6].tolist() == [1] * 5
    none[..., 0] = none[..., 6]
    assert not grow(image, band, marks, decided, none)[1].any()
    assert reached[0, 0, 1:6].all()


def test_a_voxel_that_nothing_grows_to_keeps_its_costs():
    cost = np.ones((3, 2), np.float32)
    reached = np.array([True, False, True])
    GrownLabels(np.array([1, 1, 0], np.uint8), reached, 0.5, 0.5).add_cost(cost)
    np.testing.assert_array_equal(cost, [[1, 0.5], [1, 1], [0.5, 1]])


@pytest.fixture(scope="module")
def thin_rim():
    """A dark cord in bright liquid, wide above, one to two voxels below, and dark around that."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(3)
    z, y, x = np.indices((16, 44 * 3, 44 * 3)).astype(np.float32)
    y, x = (y + 0.5) / 3 - 0.5 - 22 - np.sin(z / 4), (x + 0.5) / 3 - 0.5 - 22
    cord = (x / 4.2) ** 2 + (y / 3.2) ** 2 < 1
    rim = (x / 6.0) ** 2 + ((y + 1.6) / 6.2) ** 2 < 1
    fine = np.where(cord, 85, np.where(rim, 150, 75)).astype(np.float32)
    fine = gaussian_filter(fine, (0, 1, 1))

    def mean(a):
        return a.reshape(16, 44, 3, 44, 3).mean(axis=(2, 4))

    truth = mean(cord.astype(np.float32)) > 0.5
    image = mean(fine) + rng.normal(0, 3, truth.shape)
    volume = Volume.from_array(image.astype(np.float32))
    strokes = np.zeros(truth.shape, np.int32)
    for s in (3, 8, 13):
        row = int(np.argwhere(truth[s])[:, 0].mean())
        strokes[s, row, 20:25] = 1
        strokes[s, row - 5, 20:25] = 2
        strokes[s, row - 12, 8:36] = strokes[s, row + 10, 8:36] = 2
    field = fit_for_segmentation(volume, FitParams(gaussians=900, iterations=10))
    return volume, truth, field, strokes


def test_a_thin_bright_rim_bounds_a_cord(thin_rim):
    volume, truth, field, strokes = thin_rim
    prompts = Prompts(labels=strokes, background=2)
    dice = {}
    for name, params in (("alone", ALONE), ("grown", SegmentParams())):
        labels = SegmentModel(volume, field, params).update(prompts).labels
        dice[name] = overlap(labels == 1, truth)
    assert dice["grown"] > dice["alone"] + 0.02
    assert dice["grown"] > 0.85


def test_classes_that_are_missed_at_their_markers_may_grow_anywhere():
    image = np.full((1, 1, 1, 9), 64 * 104, np.uint16)
    image[..., :2], image[..., -2:] = 64 * 100, 64 * 109
    slot = np.arange(9, dtype=np.int32).reshape(1, 1, 9)
    voxels = np.argwhere(slot >= 0).astype(np.int32)
    marked, classes = np.array([0, 8], np.int32), np.array([1, 0], np.int32)
    before, best = np.zeros((1, 1, 9), np.uint8), np.zeros((1, 1, 9), np.float32)
    for shown in (True, False):
        _, reached = grow_regions(
            image, None, slot, voxels, marked, classes, before, best, 2, np.array([True, shown])
        )
        assert reached.all() != shown
