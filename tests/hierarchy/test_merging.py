"""Cells, their boundaries and their merging, against plain independent versions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_medgs as mg
from napari_medgs.data.equalization import equalized
from napari_medgs.hierarchy.cells import cell_graph, face_areas
from napari_medgs.hierarchy.merging import merge_regions
from napari_medgs.rendering import dominant_gaussians


def merge(ends, length, strength, mass, mean, scatter, boundary, power, noise):
    """Call the kernel on copies; return children, altitudes, bridges and the number of merges."""
    count = len(mass) - 1
    children, bridge = np.zeros((count, 2), np.int32), np.zeros((count, 2), np.int32)
    altitude = np.zeros(count)
    merges = merge_regions(
        ends.copy(), length.copy(), strength.copy(), mass.copy(), mean.copy(), scatter.copy(),
        boundary, power, noise, children, altitude, bridge,
    )  # fmt: skip
    return children[:merges], altitude[:merges], bridge[:merges]


def merge_plainly(ends, length, strength, mass, mean, scatter, boundary, power, noise):
    """Merge by looking at every pair in every step."""
    regions = {k: (mass[k], mean[k], scatter[k]) for k in range(len(mass))}
    edges = {frozenset(map(int, e)): (a, s) for e, a, s in zip(ends, length, strength)}

    def spread(region):
        m, _, total = region
        return m * np.linalg.slogdet(total / m + noise * np.eye(len(total)))[1]

    def joined(first, second):
        (ma, ua, sa), (mb, ub, sb) = first, second
        d = ub - ua
        m = ma + mb
        return m, (ma * ua + mb * ub) / m, sa + sb + ma * mb / m * np.outer(d, d)

    def cost(pair):
        a, b = (regions[k] for k in pair)
        area, step = edges[pair]
        loss = max(0.5 * (spread(joined(a, b)) - spread(a) - spread(b)), 0)
        return loss / area**power * (step / area) ** boundary

    merges, highest = [], 0.0
    while edges:
        pair = min(edges, key=cost)
        highest = max(highest, cost(pair))
        a, b = pair
        new = len(mass) + len(merges)
        regions[new] = joined(regions.pop(a), regions.pop(b))
        merges.append((set(pair), highest))
        after: dict = {}
        for other, (area, step) in edges.items():
            if other == pair:
                continue
            key = frozenset(new if k in pair else k for k in other)
            before = after.get(key, (0.0, 0.0))
            after[key] = (before[0] + area, before[1] + step)
        edges = after
    return merges


@given(
    seed=st.integers(0, 10**6),
    regions=st.integers(2, 26),
    contrasts=st.integers(1, 3),
    boundary=st.sampled_from([0.0, 0.5, 1.0]),
    power=st.sampled_from([1.0, 1.5]),
)
@settings(max_examples=40, deadline=None)
def test_merging_is_greedy(seed, regions, contrasts, boundary, power):
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(regions), 2)), np.int32)
    pairs = pairs[rng.random(len(pairs)) < 0.4]
    roots = rng.normal(size=(regions, contrasts, contrasts))
    mass = rng.integers(1, 30, regions).astype(float)
    graph = (
        pairs,
        rng.random(len(pairs)) * 5 + 0.5,
        rng.random(len(pairs)) * 9,
        mass,
        4 * rng.normal(size=(regions, contrasts)),
        roots @ roots.transpose(0, 2, 1) * mass[:, None, None],
    )
    children, altitude, bridge = merge(*graph, boundary, power, 1.0)
    expected = merge_plainly(*graph, boundary, power, 1.0)
    assert [set(pair) for pair in children.tolist()] == [pair for pair, _ in expected]
    assert np.allclose(altitude, [height for _, height in expected], rtol=1e-9)
    # A bridge joins a leaf of each side, and they were neighbors from the start.
    below = [{k} for k in range(regions)]
    touching = {tuple(pair) for pair in pairs.tolist()}
    for (a, b), (p, q) in zip(children.tolist(), bridge.tolist()):
        assert p in below[a]
        assert q in below[b]
        assert tuple(sorted((p, q))) in touching
        below.append(below[a] | below[b])


def test_hubs_do_not_change_what_is_merged_first():
    """A region with more neighbors than are renewed at once still merges with the nearest."""
    n = 2000
    mean = np.concatenate([[0.0], np.linspace(1, 40, n)])[:, None]
    ends = np.stack([np.zeros(n, np.int32), np.arange(1, n + 1, dtype=np.int32)], 1)
    ones = np.ones(n)
    mass = np.ones(n + 1)
    children, altitude, _ = merge(
        ends, ones, ones, mass, mean, np.zeros((n + 1, 1, 1)), 0.0, 1.0, 1.0
    )
    assert len(children) == n
    assert set(children[0].tolist()) == {0, 1}
    assert (np.diff(altitude) >= 0).all()


def test_cells_are_where_a_gaussian_weighs_most(field):
    """Against the formula of the field, one Gaussian at a time."""
    depth, height, width = field.info.stack_shape
    z, y, x = np.meshgrid(*map(np.arange, (depth, height, width)), indexing="ij")
    best, winner = np.full(z.shape, -np.inf), np.full(z.shape, -1)
    precision = np.exp(field.log_precision.astype(float))
    for i in range(len(field)):
        d = z - float(field.centers[i, 2])
        powers = np.stack([d, d**2, d**3])
        mx, my = np.tensordot(field.fold[i].T.astype(float), powers, 1)
        mx, my = mx + field.centers[i, 0], my + field.centers[i, 1]
        r1, r2, rt = precision[i]
        q = (r1 * ((x - mx) - field.shear[i] * (y - my))) ** 2
        q = q + (r2 * (y - my)) ** 2 + (rt * d) ** 2
        weight = np.where(q <= field.info.cutoff, field.log_weight[i] - q / 2, -np.inf)
        winner[weight > best] = i
        best = np.maximum(best, weight)
    found = np.moveaxis(dominant_gaussians(field), field.info.slice_axis, 0)
    assert (found == winner).mean() > 0.999  # the rest are ties in single precision
    assert np.array_equal(dominant_gaussians(field, 1), dominant_gaussians(field, 3))


def plain_graph(cells, contrasts, spacing):
    """Return boundaries by pair of cells: area and summed step."""
    edges: dict = {}
    for axis, area in enumerate(face_areas(spacing)):
        before = [slice(None)] * 3
        before[axis] = slice(0, -1)
        after = [slice(None)] * 3
        after[axis] = slice(1, None)
        a, b = cells[tuple(before)].ravel(), cells[tuple(after)].ravel()
        steps = contrasts[:, *after] - contrasts[:, *before]
        steps = np.sqrt((steps.reshape(len(contrasts), -1) ** 2).sum(0))
        for p, q, step in zip(a.tolist(), b.tolist(), steps.tolist()):
            if p != q:
                length, strength = edges.get((min(p, q), max(p, q)), (0.0, 0.0))
                edges[(min(p, q), max(p, q))] = (length + area, strength + area * step)
    return edges


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.5, 0.5)])
@pytest.mark.parametrize("contrasts", [1, 3])
def test_boundaries(rng, spacing, contrasts):
    cells = np.arange(5 * 6 * 7, dtype=np.int32).reshape(5, 6, 7) // 5
    image = rng.normal(size=(contrasts, 5, 6, 7)).astype(np.float32)
    graph = cell_graph(cells, image, spacing)
    per_cell = [image[:, cells == k] for k in range(cells.max() + 1)]
    # The scale is the graph's own: one for every contrast, the same in all cells.
    noise = np.array([per_cell[0][c].mean() / graph.mean[0, c] for c in range(contrasts)])
    expected = plain_graph(cells, image / noise[:, None, None, None], spacing)
    assert [tuple(pair) for pair in graph.ends.tolist()] == sorted(expected)
    assert np.allclose(graph.length, [expected[k][0] for k in sorted(expected)], rtol=1e-5)
    assert np.allclose(graph.strength, [expected[k][1] for k in sorted(expected)], rtol=1e-4)
    for k, values in enumerate(per_cell):
        scaled = values / noise[:, None]
        assert np.allclose(graph.mean[k], scaled.mean(1), rtol=1e-4, atol=1e-5)
        covariance = np.atleast_2d(np.cov(scaled, bias=True))
        assert np.allclose(graph.scatter[k] / graph.mass[k], covariance, rtol=1e-3, atol=1e-5)


def test_thick_slices_have_large_faces_within():
    thin, thick = face_areas((1, 1, 1)), face_areas((8, 1, 1))
    assert np.allclose(thin, 1)
    assert thick[0] < 1 < thick[1] == thick[2]
    assert np.isclose(np.prod(thick), 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_image_has_the_same_tree(tree, volume, axis):
    image = np.stack([equalized(channel, 0) for channel in volume.data])
    trees = []
    for cells, contrasts in (
        (tree.cells, image),
        (np.flip(tree.cells, axis), np.flip(image, axis + 1)),
    ):
        g = cell_graph(
            np.ascontiguousarray(cells), np.ascontiguousarray(contrasts), volume.spacing
        )
        trees.append(merge(g.ends, g.length, g.strength, g.mass, g.mean, g.scatter, 0.5, 1.5, 1))
    assert np.array_equal(trees[0][0], trees[1][0])
    assert np.allclose(trees[0][1], trees[1][1], rtol=1e-6)


def test_the_order_of_the_gaussians_does_not_matter(tree, volume, field):
    order = np.random.default_rng(1).permutation(len(field))
    other = mg.part_tree(volume, field=field.subset(order))
    assert np.allclose(np.sort(other.altitude), np.sort(tree.altitude), rtol=1e-6)
    for place in ((4, 8, 8), (3, 22, 10), (4, 18, 26)):
        first, second = tree.at(place), other.at(place)
        assert first.level == second.level
        assert [tree.voxels[n[0]] for n in first.levels] == [
            other.voxels[n[0]] for n in second.levels
        ]
        assert np.array_equal(tree.mask(first.nodes), other.mask(second.nodes))
