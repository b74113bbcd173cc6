"""Shortest paths, projection and rendering against plain computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medgs._util.trilinear import trilinear
from napari_medgs.rendering import render_points, score_renderer
from napari_medgs.segmentation.advanced import GraphParams
from napari_medgs.segmentation.params import IslandRule
from napari_medgs.segmentation.postprocess.components import drop_islands, fill_holes
from napari_medgs.segmentation.prompts.collector import labeled_voxels
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.result.result import count_labels
from napari_medgs.segmentation.solver.graph import build_graph
from napari_medgs.segmentation.solver.narrow_band import STEPS
from napari_medgs.segmentation.solver.shortest_paths import band_distances, graph_distances

BASE_COST = np.float32(GraphParams().base_cost)


def markers_of(voxels, classes, values):
    empty = np.zeros(0, np.int32)
    return Markers(
        values,
        np.asarray(voxels, np.int32).reshape(-1, 3),
        np.asarray(classes, np.int32),
        empty.reshape(0, 3),
        empty,
        user_marked=np.ones(len(classes), bool),
    )


@pytest.fixture
def random_graph(rng):
    points = rng.uniform(0, 20, (300, 3))
    image = rng.normal(size=(1, 21, 21, 21)).astype(np.float32)
    return build_graph(points, np.ones(3), image), points


def test_graph_distances_are_those_of_scipy(random_graph, rng):
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    graph, points = random_graph
    unary = rng.uniform(0, 1, len(points)).astype(np.float32)
    rows = np.repeat(np.arange(len(points)), np.diff(graph.offsets))
    gradient_weight = rng.uniform(0, 1, len(points)).astype(np.float32)
    cost = graph.gradient_costs * 0.5 * (gradient_weight[rows] + gradient_weight[graph.neighbors])
    cost += graph.lengths * (BASE_COST + 0.5 * (unary[rows] + unary[graph.neighbors]))
    expected = dijkstra(csr_matrix((cost, (rows, graph.neighbors))), indices=[3, 7]).min(axis=0)
    found = np.full(len(points), np.inf, np.float32)
    starts = np.array([3, 7], np.int32)
    found[starts] = 0
    bound = np.full(len(points), 1e6, np.float32)
    arguments = (
        graph.offsets,
        graph.neighbors,
        graph.gradient_costs,
        graph.lengths,
        BASE_COST,
        unary,
        gradient_weight,
    )
    graph_distances(*arguments, starts, bound, found)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # One more seed on top of an earlier answer is the answer to all seeds.
    late = np.array([11], np.int32)
    both = np.full(len(points), np.inf, np.float32)
    both[[3, 7, 11]] = 0
    graph_distances(*arguments, np.array([3, 7, 11], np.int32), bound, both)
    found[late] = 0
    graph_distances(*arguments, late, bound, found)
    np.testing.assert_allclose(found, both, rtol=1e-5)


def test_edges_cost_the_integral_of_the_squared_slope():
    image = np.zeros((1, 3, 3, 12), np.float32)
    image[0, :, :, 6:] = 2.0
    points = np.array([[1.0, 1, 1], [1, 1, 4], [1, 1, 10]])
    graph = build_graph(points, np.array([1.0, 1, 1]), image)
    table = {
        (min(i, int(j)), max(i, int(j))): (float(c), float(n))
        for i in range(3)
        for j, c, n in zip(
            graph.neighbors[graph.offsets[i] : graph.offsets[i + 1]],
            graph.gradient_costs[graph.offsets[i] : graph.offsets[i + 1]],
            graph.lengths[graph.offsets[i] : graph.offsets[i + 1]],
            strict=True,
        )
    }
    assert table[0, 1] == pytest.approx((0, 3))
    assert table[1, 2] == pytest.approx((4.0, 6))


def test_band_distances_follow_the_image():
    image = np.zeros((1, 1, 5, 9), np.float32)
    image[0, 0, :4, 4] = 5.0  # a wall with a gap in the last row
    slot = np.arange(45, dtype=np.int32).reshape(1, 5, 9)
    voxels = np.argwhere(slot >= 0).astype(np.int32)
    distance = np.full(45, np.inf, np.float32)
    distance[0] = 0
    flat = np.zeros(45, np.float32)
    band_distances(
        image, slot, voxels, STEPS, np.ones(6, np.float32), np.ones(6, np.float32), BASE_COST,
        flat, flat + 1, np.full(45, 1e9, np.float32), distance,
    )  # fmt: skip
    assert distance[slot[0, 0, 8]] == pytest.approx(16 * BASE_COST, rel=1e-5)
    assert distance[slot[0, 4, 8]] == pytest.approx(12 * BASE_COST, rel=1e-5)
    assert distance[slot[0, 0, 4]] > 20


@pytest.mark.parametrize("height", [0.0, 1e-3, 1.0, 3000.0])  # distances up to 1e7
@pytest.mark.parametrize("base", [0.0, 0.05])
def test_band_distances_are_those_of_scipy(rng, height, base):
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    shape = (4, 7, 8)
    image = (height * rng.normal(size=(1, *shape))).astype(np.float32)
    slot = np.full(shape, -1, np.int32)
    voxels = np.argwhere(rng.random(shape) < 0.8).astype(np.int32)
    slot[tuple(voxels.T)] = np.arange(len(voxels))
    unary, weight = rng.uniform(0.01, 1, (2, len(voxels))).astype(np.float32)
    rows, columns, costs = [], [], []
    for step in STEPS:
        there = voxels + step
        inside = ((there >= 0) & (there < shape)).all(axis=1)
        i = np.flatnonzero(inside)
        j = slot[tuple(there[inside].T)]
        i, j = i[j >= 0], j[j >= 0]
        square = (image[0][tuple(voxels[i].T)] - image[0][tuple(voxels[j].T)]) ** 2
        steep = 0.5 * (weight[i] + weight[j]) * square.astype(np.float64)
        rows, columns = [*rows, *i], [*columns, *j]
        costs += (steep + base + 0.5 * (unary[i] + unary[j])).tolist()
    size = (len(voxels), len(voxels))
    expected = dijkstra(csr_matrix((costs, (rows, columns)), size), indices=[2, 9]).min(axis=0)
    distance = np.full(len(voxels), np.inf, np.float32)
    distance[[2, 9]] = 0
    ones = np.ones(6, np.float32)
    bound = np.full(len(voxels), np.inf, np.float32)
    band_distances(
        image, slot, voxels, STEPS, ones, ones, np.float32(base), unary, weight, bound, distance
    )
    np.testing.assert_allclose(distance, expected, rtol=1e-4)


def test_projection_is_the_transpose_of_rendering(ball_scene, rng):
    """<backproject(mark), v> = sum over marked voxels of what the field renders from values v."""
    _, _, field = ball_scene
    renderer = score_renderer(field)
    voxels = np.stack([rng.integers(0, n, 200) for n in field.info.stack_shape], 1)
    voxels = np.unique(voxels, axis=0).astype(np.int32)
    classes = rng.integers(0, 3, len(voxels))
    shown = renderer.backproject(voxels, classes, 3)
    mass = shown.mass
    plain = field.with_info(intensity_scale=(1.0,), intensity_offset=(0.0,))
    plain.background[:] = 0
    points = np.empty(voxels.shape)
    points[:, list(field.info.stack_axes)] = voxels
    rendered = render_points(plain, points)[:, 0]
    expected = [rendered[classes == k].sum() for k in range(3)]
    np.testing.assert_allclose(mass.T @ field.values[:, 0], expected, rtol=1e-3)


def test_planes_of_all_orientations_agree(ball_scene, rng):
    _, _, field = ball_scene
    renderer = score_renderer(field)
    scores = rng.normal(size=(len(field), 3)).astype(np.float32)
    whole = np.stack([renderer.render_plane(scores, 0, z)[0] for z in range(renderer.shape[0])], 1)
    np.testing.assert_allclose(renderer.render_plane(scores, 1, 20)[0], whole[:, :, 20], atol=1e-4)
    np.testing.assert_allclose(
        renderer.render_plane(scores, 2, 31)[0], whole[:, :, :, 31], atol=1e-4
    )
    labels = np.empty(renderer.shape, np.uint8)
    top, margin = np.empty(renderer.shape, np.float32), np.empty(renderer.shape, np.float32)
    renderer.argmax(scores, labels, top, margin)
    kept = margin < 1e30
    np.testing.assert_array_equal(labels[kept], whole.argmax(axis=0)[kept])
    ordered = np.sort(whole, axis=0)
    np.testing.assert_allclose(margin[kept], (ordered[-1] - ordered[-2])[kept], atol=1e-3)


def test_islands_and_holes():
    labels = np.zeros((5, 12, 12), np.uint8)
    labels[1:4, 1:8, 1:8] = 1
    labels[2, 4, 4] = 0
    labels[2, 10, 10] = 1
    labels[4, 0:2, 9:12] = 2
    markers = markers_of([[2, 2, 2], [4, 1, 10], [0, 0, 0]], [1, 2, 0], (0, 1, 2))
    kept = labels.copy()
    assert drop_islands(kept, markers, IslandRule.KEEP) == 0
    touched = labels.copy()
    assert drop_islands(touched, markers, IslandRule.CONNECTED) == 1
    assert touched[2, 10, 10] == 0
    assert (touched == 2).sum() == 6
    largest = labels.copy()
    assert drop_islands(largest, markers, IslandRule.LARGEST) == 1
    np.testing.assert_array_equal(largest, touched)
    more = markers_of([[2, 2, 2], [2, 10, 10]], [1, 1], (0, 1, 2))
    drawn = labels.copy()
    assert drop_islands(drawn, more, IslandRule.LARGEST) == 0, "what is drawn stays"
    inferred = replace(more, user_marked=np.array([True, False]))
    assert drop_islands(drawn, inferred, IslandRule.LARGEST) == 1
    assert fill_holes(touched, markers) == 1
    assert touched[2, 4, 4] == 1
    # A hole with a background stroke in it stays.
    marked = markers_of([[2, 2, 2], [2, 4, 4]], [1, 0], (0, 1, 2))
    again = labels.copy()
    assert fill_holes(again, marked) == 0


def test_a_slip_in_the_spacing_does_not_take_for_ever(rng):
    points = rng.uniform(0, 7, (40, 3))
    image = rng.normal(size=(1, 8, 8, 8)).astype(np.float32)
    graph = build_graph(points, np.array([1.0, 1e9, 1e9]), image)
    assert np.isfinite(graph.gradient_costs).all()
    assert (graph.gradient_costs >= 0).all()


def test_scores_in_windows_are_those_of_the_whole_image(ball_scene, rng):
    _, _, field = ball_scene
    renderer = score_renderer(field)
    shape = renderer.shape
    before = rng.normal(size=(len(field), 3)).astype(np.float32)
    after = before.copy()
    chosen = np.zeros(len(field), bool)
    chosen[rng.choice(len(field), 3, replace=False)] = True
    after[chosen, 1] += 5
    every = {}
    for name, scores in (("before", before), ("after", after)):
        every[name] = np.zeros(shape, np.uint8), *np.zeros((2, *shape), np.float32)
        renderer.argmax(scores, *every[name])
    windows = renderer.windows(chosen)
    assert windows.shape == (shape[0], 2, 2)
    inside = np.zeros(shape, bool)
    for z, ((y0, y1), (x0, x1)) in enumerate(windows.tolist()):
        inside[z, y0:y1, x0:x1] = True
    assert 0 < inside.sum() < inside.size
    for array, now in zip(every["before"], every["after"], strict=True):
        assert np.array_equal(array[~inside], now[~inside])  # changes lie within
        assert (array[inside] != now[inside]).any()
    renderer.argmax(after, *every["before"], windows)
    for array, now in zip(every["before"], every["after"], strict=True):
        np.testing.assert_allclose(array, now, atol=1e-5)
    nothing = renderer.windows(np.zeros(len(field), bool))
    assert (nothing[..., 0] >= nothing[..., 1]).all()


@given(seed=st.integers(0, 999), classes=st.integers(1, 4), wide=st.integers(1, 12))
def test_components_without_a_marker_become_background(seed, classes, wide):
    from scipy.ndimage import label as components

    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 7)), wide)
    labels = rng.integers(0, classes + 1, shape).astype(np.uint8)
    voxels = np.stack([rng.integers(0, n, 4) for n in shape], axis=1)
    expected = np.zeros_like(labels)
    for k in range(1, classes + 1):
        pieces, _ = components(labels == k)
        marked = pieces[tuple(voxels.T)]
        expected[np.isin(pieces, marked[marked > 0])] = k
    markers = markers_of(voxels, np.ones(4), tuple(range(classes + 1)))
    dropped = drop_islands(labels, markers, IslandRule.CONNECTED)
    np.testing.assert_array_equal(labels, expected)
    assert dropped >= 0
    assert drop_islands(labels, markers, IslandRule.CONNECTED) == 0


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 3), (4, 8, 16)])
def test_voxels_are_counted_in_any_memory_order(rng, shape):
    labels = np.repeat(rng.integers(0, 5, shape), 7, axis=2).astype(np.uint8)
    expected = np.bincount(labels.ravel(), minlength=5)
    for some in (labels, np.moveaxis(labels, 2, 0), labels.copy(order="F"), labels[:, ::-1]):
        assert count_labels(some, 5).tolist() == expected.tolist()


def test_labeled_voxels_are_those_of_a_comparison(rng):
    labels = rng.integers(-1, 2, (4, 5, 6))
    for some in (labels, np.asfortranarray(labels), labels.transpose(2, 0, 1), labels * 0 - 1):
        expected = np.flatnonzero(some.reshape(-1) != -1)
        np.testing.assert_array_equal(labeled_voxels(some, -1), expected)


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 4, 3)])
def test_values_between_voxels_are_those_of_scipy(shape, rng):
    from scipy.ndimage import map_coordinates

    volume = rng.normal(size=shape).astype(np.float32)
    points = rng.uniform(-2, np.array(shape) + 1, (50, 3))  # also outside
    found = [trilinear(volume, *point) for point in points]
    expected = map_coordinates(volume.astype(float), points.T, order=1, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-5)
