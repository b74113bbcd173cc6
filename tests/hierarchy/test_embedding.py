"""Parts as points, and parts that are alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import napari_medgs as mg
from napari_medgs.errors import Cancelled, GeometryError, ParameterError
from napari_medgs.hierarchy import PartTree, embed_parts, hyperbolic, part_features, similar_parts
from tests.hierarchy.conftest import blocks

points = arrays(np.float64, (4, 3), elements=st.floats(-0.55, 0.55))


@settings(max_examples=30, deadline=None)
@given(points)
def test_translation_keeps_distances(p):
    moved = hyperbolic.translate(p, p[0])
    assert np.allclose(moved[0], 0, atol=1e-12)
    before = hyperbolic.distance(p[:, None], p[None])
    assert np.allclose(hyperbolic.distance(moved[:, None], moved[None]), before, atol=1e-9)
    back = hyperbolic.translate(moved, -p[0])
    assert np.allclose(back, p, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(points)
def test_distances_are_those_of_the_hyperboloid(p):
    """An independent formula: arcosh of the Lorentz product."""
    room = 1 - (p**2).sum(axis=1, keepdims=True)
    time, space = (2 - room) / room, 2 * p / room
    product = np.maximum(time @ time.T - space @ space.T, 1)
    found = hyperbolic.distance(p[:, None], p[None])
    assert np.allclose(np.cosh(found), product, rtol=1e-9)
    flat = hyperbolic.to_flat(p)
    assert np.allclose(np.linalg.norm(flat, axis=1), hyperbolic.distance(p, np.zeros(3)))
    assert np.allclose(hyperbolic.from_flat(flat), p)


@pytest.fixture(scope="module")
def found(tree):
    return {s: embed_parts(tree, 5, s, count=24) for s in ("poincare", "euclidean")}


def test_distances_follow_the_tree(tree, found):
    for space, e in found.items():
        assert e.space == space
        assert e.points.shape == (len(e), 5)
        assert int(e.is_part.sum()) == 24
        assert len(e) == 47
        assert e.parent[-1] == -1
        assert e.distortion < 0.2
        assert e.rank_correlation > 0.8
        joins = tree.common_ancestor([int(n) for n in e.nodes[e.is_part]])
        assert e.nodes[-1] == joins
        for k in range(len(e) - 1):
            assert e.nodes[e.parent[k]] in tree.ancestors(int(e.nodes[k]))
    ball = found["poincare"]
    assert (np.linalg.norm(ball.points, axis=1) < 1).all()


def balanced_tree(levels: int) -> PartTree:
    """Return a full binary tree over single voxels; costs grow tenfold per level."""
    count = 2**levels
    row, children, altitude, after = list(range(count)), [], [], count
    for level in range(levels):
        pairs = [(row[k], row[k + 1]) for k in range(0, len(row), 2)]
        children += pairs
        altitude += [10.0**level] * len(pairs)
        row = list(range(after, after + len(pairs)))
        after += len(pairs)
    cells = np.arange(count, dtype=np.int32).reshape(1, 4, -1)
    return PartTree(
        mg.Grid(cells.shape), cells, np.arange(count, dtype=np.int32),
        np.array(children, np.int32), np.array(altitude),
        np.zeros((count - 1, 2), np.int32), np.zeros(0, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_a_deep_tree_fits_better_into_hyperbolic_space(dim):
    tree = balanced_tree(5)
    ball = embed_parts(tree, dim, count=32, min_fraction=0)
    flat = embed_parts(tree, dim, "euclidean", count=32, min_fraction=0)
    assert len(ball) == 63
    assert ball.distortion < 0.7 * flat.distortion
    assert ball.rank_correlation > flat.rank_correlation


def test_the_report_is_what_the_points_say(tree, found):
    """Distortion and rank correlation, from the definition of the tree's distance."""
    from scipy.stats import spearmanr

    for e in found.values():
        height = np.where(e.is_part, 0, tree.height[e.nodes])
        h = np.log1p(height / height[height > 0].min())
        index = {int(n): k for k, n in enumerate(e.nodes)}
        goal, length = [], []
        for a in range(len(e)):
            for b in range(a):
                top = tree.common_ancestor([int(e.nodes[a]), int(e.nodes[b])])
                goal.append(2 * h[index[top]] - h[a] - h[b])
                length.append(e.distances(a)[b])
        goal, length = np.array(goal), np.array(length)
        known = goal > 0
        error = np.abs(length[known] / e.scale / goal[known] - 1).mean()
        assert e.distortion == pytest.approx(error, rel=1e-6)
        assert e.rank_correlation == pytest.approx(spearmanr(length[known], goal[known])[0])


def test_a_map_can_be_moved(tree):
    e = embed_parts(tree, 2, count=10, steps=200)
    again = embed_parts(tree, 2, count=10, steps=200)
    assert np.array_equal(e.points, again.points)
    sums = [e.distances(k)[e.is_part].sum() for k in range(len(e))]
    assert sums[e.middle] == min(sums)
    moved = e.centered(e.points[3])
    assert np.allclose(moved[3], 0, atol=1e-12)
    assert (np.linalg.norm(moved, axis=1) < 1).all()
    flat = embed_parts(tree, 2, "euclidean", count=10, steps=50)
    assert np.allclose(flat.centered(flat.points[2])[2], 0)


def test_features_are_measured(tree, volume):
    rows = part_features(tree, volume.data)
    assert rows.shape == (len(tree), 6)
    node = tree.best_node(blocks()[1] == 2)[0]
    inside = tree.leaf_mask(node)[tree.cells]
    from napari_medgs.data.equalization import equalized

    values = equalized(volume.data[0])[inside]
    places = np.argwhere(inside) * np.array(volume.spacing)
    matrix = np.cov(places.T, bias=True) + np.diag(np.array(volume.spacing) ** 2 / 12)
    axes = np.sqrt(np.linalg.eigvalsh(matrix)[::-1])
    assert rows[node, 0] * 0.1 == pytest.approx(values.mean(), rel=1e-4)
    assert rows[node, 1] * 0.1 == pytest.approx(values.std(), rel=1e-3)
    assert np.exp(rows[node, 2] * 0.35) == pytest.approx(inside.sum() * 0.002)
    assert np.allclose(np.exp(rows[node, 3:] * 0.25), axes, rtol=1e-6)
    assert np.isfinite(rows).all()


def test_like_parts_are_found_in_another_image(tree):
    image, labels = blocks(5)
    other = mg.part_tree(mg.Volume.from_array(image[:, ::-1].copy(), spacing=(2.0, 1.0, 1.0)))
    for value in (1, 2, 3):
        node = tree.best_node(labels == value)[0]
        found = similar_parts(tree, node, [other], count=6)
        assert [p.distance for p in found] == sorted(p.distance for p in found)
        table = np.empty(2, object)
        table[:] = part_features(tree), part_features(other)
        assert similar_parts(tree, node, [other], count=6, features=table) == found
        best = next(p for p in found if p.tree == 1)
        mask = other.leaf_mask(best.node)[other.cells]
        block = labels[:, ::-1] == value
        assert 2 * (mask & block).sum() / (mask.sum() + block.sum()) > 0.9
        assert best.milliliters == pytest.approx(mask.sum() * 0.002)
        masks = [tree.leaf_mask(p.node) for p in found if p.tree == 0] + [tree.leaf_mask(node)]
        assert max(np.sum(masks, axis=0)) == 1  # none overlap


def test_chosen_parts_are_laid_out(tree):
    whole = tree.cut(6).nodes
    found = embed_parts(tree, parts=whole, steps=20)
    assert np.array_equal(found.points, embed_parts(tree, count=6, steps=20).points)
    some = embed_parts(tree, parts=whole[2:5], steps=20)
    assert set(some.nodes[some.is_part]) == set(whole[2:5])
    for parts in ([whole[0], whole[0]], [whole[0], tree.root]):
        with pytest.raises(ParameterError, match="outside of each other"):
            embed_parts(tree, parts=parts)
    with pytest.raises(ParameterError, match="2 to 1000 parts, not 1"):
        embed_parts(tree, parts=whole[:1])


def test_bad_input(tree):
    with pytest.raises(ParameterError, match="poincare and euclidean, not 'sphere'"):
        embed_parts(tree, 2, "sphere")
    with pytest.raises(ParameterError, match="2 to 16 dimensions, not 1"):
        embed_parts(tree, 1)
    with pytest.raises(ParameterError, match="2 to 1000 parts, not 1"):
        embed_parts(tree, count=1)
    with pytest.raises(Cancelled):
        embed_parts(tree, count=5, should_stop=lambda: True)
    with pytest.raises(GeometryError, match="shape"):
        part_features(tree, np.zeros((1, 2, 2, 2)))
    with pytest.raises(ParameterError, match="one part or more"):
        similar_parts(tree, 0, count=0)
    with pytest.raises(ParameterError, match="same contrasts"):
        similar_parts(tree, 0, [tree], features=[np.zeros((len(tree), 6)), np.zeros((9, 8))])
    with pytest.raises(ParameterError, match="nodes 0 to"):
        similar_parts(tree, len(tree))
