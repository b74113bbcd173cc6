"""Limits of path cost past the last annotated slice."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentParams, segment
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.extent import ExtentLimits, estimate_extent
from napari_medgs.segmentation.solver.graph import Graph
from tests.segmentation.conftest import overlap

NEVER = 1e6


def markers_of(marks, fully_labeled=()):
    """Return marks {(z, y, x): class}; ``fully_labeled`` slices count as labeled in full."""
    empty = np.zeros(0, np.int32)
    return Markers(
        (0, 1),
        np.array(list(marks), np.int32),
        np.array(list(marks.values()), np.int32),
        empty.reshape(0, 3),
        empty,
        fully_labeled={0: np.asarray(fully_labeled, np.int64)} if len(fully_labeled) else {},
        user_marked=np.ones(len(marks), bool),
    )


def line(slices):
    """Return strokes of both classes on slices, four marks of each."""
    return {(z, y, x): int(y == 2) for z in slices for y in (2, 6) for x in range(4)}


@pytest.fixture
def path_costs():
    """20 nodes every slice from 0 to 40: class 1 comes from slices 10 and 20, 1 a slice."""
    z = np.repeat(np.arange(41.0), 20)
    points = np.stack([z, np.full(len(z), 2.0), np.zeros(len(z))], axis=1)
    own = np.minimum(np.abs(z - 10), np.abs(z - 20)) + 0.5
    return points, np.stack([np.full(len(z), 100.0), own]).astype(np.float32)


def test_past_the_last_slice_paths_cost_no_more_than_between(path_costs):
    points, distance = path_costs
    extent = estimate_extent(points, distance, markers_of(line((10, 20))), 4.0, NEVER)
    assert extent.cost == pytest.approx(4 * 0.5)  # in the slices themselves
    assert extent.outside == pytest.approx(5.5)  # halfway between them
    # One gap is spared on both sides.
    assert (extent.first, extent.last) == (0, 30)


def test_fully_labeled_slices_set_no_limit_within_slices(path_costs):
    points, distance = path_costs
    extent = estimate_extent(points, distance, markers_of(line((10, 20)), (10, 20)), 4.0, NEVER)
    assert extent.cost == NEVER
    costs = extent.at(np.array([[0, 0, 0], [30, 0, 0], [30.001, 0, 0], [40, 9, 9]]))
    np.testing.assert_allclose(costs, [NEVER, NEVER, extent.outside, extent.outside])
    assert extent.outside < 6


def test_the_limit_past_the_last_slice_of_a_tube_grows(path_costs):
    marks = markers_of(line((10, 20)))
    wide, tube = (estimate_extent(*path_costs, marks, 40.0, NEVER, width=w) for w in (11, 9))
    places = np.array([[30, 0, 0], [31, 0, 0], [40, 0, 0], [5000, 0, 0]])
    np.testing.assert_allclose(wide.at(places), [20, 5.5, 5.5, 5.5])
    np.testing.assert_allclose(tube.at(places), [20, 6.05, 11, 20])


def test_slices_close_together_set_no_limit(path_costs):
    points, _ = path_costs
    for slices, width in (((10, 20), 81), ((10, 12, 14), 9), ((14, 15), 5)):
        marks = markers_of(line(slices))
        far, close = (
            estimate_extent(*path_costs, marks, 40.0, NEVER, width=w) for w in (width - 2, width)
        )
        assert far.at(points).min() < NEVER
        assert (close.at(points) == NEVER).all()
    labeled = markers_of(line((10, 20)), (10, 20))  # their surroundings are known as well
    assert estimate_extent(*path_costs, labeled, 40.0, NEVER, width=200.0).outside < 6


def test_the_limit_past_slices_that_span_little_of_a_class_is_higher(path_costs):
    marks = markers_of(line((10, 20)))
    outside = [
        estimate_extent(*path_costs, marks, 40.0, NEVER, width=w).outside for w in (25, 37.5, 50)
    ]
    np.testing.assert_allclose(outside, [5.5, 5.5 * 1.5**2, 22])
    # No more than what holds anywhere.
    highest = estimate_extent(*path_costs, marks, 40.0, NEVER, width=79)
    np.testing.assert_allclose(highest.at(np.array([[31, 0, 0], [40, 0, 0]])), [20, 20])


def test_slices_no_farther_apart_than_nodes_set_no_limit(path_costs):
    points, _ = path_costs
    marks = markers_of(line((10, 13)))
    for apart, limited in ((2.9, True), (3.0, False)):
        distance = np.array([apart, 9.0, 9.0])
        extent = estimate_extent(*path_costs, marks, 40.0, NEVER, width=3, node_distance=distance)
        assert (extent.at(points).min() < NEVER) == limited


def test_what_is_beyond_the_limit_is_not_passed():
    """A chain of nodes, one a slice, with one past the last slice that costs too much."""
    count = 12
    links = [[j for j in (i - 1, i + 1) if 0 <= j < count] for i in range(count)]
    offsets = np.concatenate([[0], np.cumsum([len(n) for n in links])]).astype(np.int32)
    neighbors = np.concatenate(links).astype(np.int32)
    ones = np.ones(len(neighbors), np.float32)
    points = np.stack([np.arange(count), np.zeros(count), np.zeros(count)], axis=1).astype(float)
    own = np.array([0, 0, 0, 0, 0, 1, 1, 9, 3, 3, 3, 3], np.float32)
    distance = np.stack([np.full(count, 100, np.float32), own])
    seeds = np.where(np.arange(count) < 5, 1, -1).astype(np.int32)
    extent = ExtentLimits(20.0, 2.0, 0, -1.0, 5.0, 0.5)
    extent.cut(distance, points, seeds, Graph(offsets, neighbors, ones, ones), NEVER)
    assert (distance.argmin(axis=0) == [1] * 7 + [0] * 5).all()


def test_one_slice_limits_by_its_own_path_costs(path_costs):
    points, distance = path_costs
    extent = estimate_extent(points, distance, markers_of(line((10,))), 4.0, NEVER)
    assert (extent.cost, extent.outside) == (2.0, 2.0)
    np.testing.assert_allclose(extent.at(points), 2.0)


def test_voxels_set_the_limit_of_scattered_classes(path_costs):
    points, distance = path_costs
    limits = estimate_extent(
        points, distance, markers_of(line((10, 20))), 1.0, NEVER, scattered=frozenset({1})
    )
    assert limits.cost == pytest.approx(0.5)
    voxels = np.array([[z, y, 0] for z in (10, 15) for y in range(10)], np.int32)
    costs = np.stack([np.full(20, 30.0), np.arange(20) / 2]).astype(np.float32)
    least = limits.limit_of_voxels(voxels, costs, 100)
    assert least == 4.5  # those of slice 15 do not count
    ended = costs.copy()
    limits.end_voxels(ended, voxels, least)
    assert (ended.argmin(axis=0) == (costs[1] < 4.5)).all()
    none = np.zeros(0, np.int32)
    alone = Graph(np.zeros(len(points) + 1, np.int32), none, none, none)
    limits.cut(distance, points, np.full(len(points), -1, np.int32), alone, NEVER)
    assert (distance[0] == 100).all()  # nor do its nodes end


@pytest.mark.parametrize("slices", [(10,), (10, 20)])
def test_where_nodes_are_few_voxels_set_the_limit(path_costs, slices):
    points, distance = path_costs
    on = np.flatnonzero(np.isin(points[:, 0], slices))
    distance[1, on[19:]] = 0  # the others are seeds
    limits = estimate_extent(points, distance, markers_of(line(slices)), 4.0, NEVER)
    assert limits.cost == NEVER
    voxels = np.array([[z, y, 0] for z in (10, 15) for y in range(21)], np.int32)
    costs = np.stack([np.full(42, 100.0), np.arange(42) * 2.0]).astype(np.float32)
    limit = limits.limit_of_voxels(voxels, costs, 50)
    assert limit == 3 * 20  # three times the median of slice 10, its seed with it
    ended = costs.copy()
    limits.end_voxels(ended, voxels, limit)
    assert (ended.argmin(axis=0) == (costs[1] < 60)).all()
    assert limits.limit_of_voxels(voxels[1:], costs[:, 1:], 50) > 0
    assert limits.limit_of_voxels(voxels[2:], costs[:, 2:], 50) == 0  # 19 voxels
    limits.end_voxels(costs, voxels, 0)
    assert (costs[0] == 100).all()
    distance[1, on[19]] = 0.5  # one more node
    told = estimate_extent(points, distance, markers_of(line(slices)), 4.0, NEVER)
    assert told.cost == pytest.approx(2.0)
    assert told.limit_of_voxels(voxels, costs, 50) == 0


def test_no_ratio_no_limit(path_costs):
    points, distance = path_costs
    extent = estimate_extent(points, distance, markers_of(line((10, 20))), 0.0, NEVER)
    assert (extent.at(points) == NEVER).all()


@pytest.fixture(scope="module")
def column():
    """A column of three like bones, thin discs between them: labels of the middle one, image."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[0:60, 0:36, 0:36].astype(np.float32)
    round_ = (y - 18) ** 2 + (x - 18) ** 2
    labels = ((np.abs(z - 30) <= 8) & (round_ < 81)).astype(np.uint8)
    image = 50 + rng.normal(0, 6, z.shape)
    for center in (10, 30, 50):
        image[(np.abs(z - center) <= 8) & (round_ < 81)] += 60
    # They touch in their middle: a way out that no edge closes.
    joint = (round_ < 16) & (np.abs(z - 30) < 28) & (image < 80)
    image[joint] += 60
    volume = Volume.from_array(image.astype(np.float32))
    return volume, labels, fit_for_segmentation(volume, FitParams(gaussians=4000, iterations=40))


def test_a_bone_does_not_leak_into_its_neighbours(column):
    volume, labels, field = column
    fully_labeled = np.full(labels.shape, -1, np.int16)
    for z in (25, 30, 35):
        fully_labeled[z] = labels[z]
    prompts = Prompts(labels=fully_labeled, unlabeled=-1)
    ended = segment(volume, prompts, field=field).labels == 1
    endless = segment(volume, prompts, SegmentParams(max_path_ratio=0), field=field).labels == 1
    assert overlap(ended, labels == 1) > 0.8
    assert overlap(ended, labels == 1) > overlap(endless, labels == 1) + 0.1


def test_strokes_beside_each_other_do_not_cut_off_the_far_end_of_a_tube():
    """A tube that gets darker, strokes on two slices at one end."""
    rng = np.random.default_rng(5)
    z, y, x = np.mgrid[0:48, 0:32, 0:32].astype(np.float32)
    tube = (y - 16 - 4 * np.sin(z / 8)) ** 2 + (x - 16 - 4 * np.cos(z / 8)) ** 2 < 20
    image = 50 + (50 - 25 * z / 48) * tube + rng.normal(0, 16, z.shape)
    volume = Volume.from_array(image.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=2500, iterations=10))
    strokes = np.full(tube.shape, -1, np.int16)
    for index in (4, 5):
        rows, columns = np.nonzero(tube[index])
        strokes[index, round(rows.mean()), columns.min() + 1 : columns.max()] = 1
        strokes[index, 2, 2:30] = strokes[index, 2:30, 2] = strokes[index, 29, 2:30] = 0
    mask = segment(volume, Prompts(labels=strokes, unlabeled=-1), field=field).labels == 1
    assert overlap(mask[16:], tube[16:]) > 0.85
