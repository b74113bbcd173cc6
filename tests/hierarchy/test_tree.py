"""The tree of parts: structure, clicks, cuts, masks, and bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.measure import grid_points_in_poly

import napari_medgs as mg
from napari_medgs.data.field import GaussianField
from napari_medgs.errors import Cancelled, GeometryError, ImageError, MedGSError, ParameterError
from napari_medgs.hierarchy import PartParams, build_tree, move_tree

INSIDE = {1: (4, 8, 8), 2: (3, 22, 10), 3: (4, 18, 26)}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_parts_nest_and_their_volumes_add_up(tree):
    assert len(tree) == 2 * tree.leaves - 1
    first, second = tree.voxels[tree.children].T
    assert np.array_equal(first + second, tree.voxels[tree.leaves :])
    assert (first >= second).all()
    assert tree.voxels[tree.root] == tree.cells.size
    assert (np.diff(tree.altitude) >= 0).all()
    assert tree.cells.min() == 0
    assert tree.cells.max() == tree.leaves - 1
    masks = [tree.leaf_mask(int(node))[tree.cells] for node in tree.ancestors(5)]
    assert all((small <= large).all() for small, large in itertools.pairwise(masks))
    assert [int(m.sum()) for m in masks] == tree.voxels[tree.ancestors(5)].tolist()
    assert masks[-1].all()


def test_one_click_finds_a_block(tree, truth):
    for label, place in INSIDE.items():
        block = truth == label
        node, score = tree.best_node(block)
        assert score > 0.9
        part = tree.at(place)
        best = max(dice(tree.mask(nodes), block) for nodes in part.levels)
        assert best > 0.9
        assert dice(tree.mask(node), block) > 0.9
        assert np.isclose(tree.milliliters(node), tree.voxels[node] * 2 / 1000)


def test_the_same_again_and_with_any_number_of_threads(tree, volume, field):
    other = mg.part_tree(volume, field=field, params=PartParams(threads=1))
    assert np.array_equal(other.children, tree.children)
    assert np.array_equal(other.altitude, tree.altitude)
    assert np.array_equal(other.cells, tree.cells)
    node = tree.best_node(tree.cells % 2 == 0)[0]
    assert np.array_equal(other.soft_mask(node), tree.soft_mask(node))


def test_best_node_is_the_best(tree, truth):
    block = truth == 2
    scores = [dice(tree.leaf_mask(n)[tree.cells], block) for n in range(len(tree))]
    node, score = tree.best_node(block)
    assert np.isclose(score, max(scores))
    assert np.isclose(scores[node], score)


def test_levels_grow_by_a_quarter(tree):
    for leaf in range(0, tree.leaves, 7):
        levels = tree.levels(leaf)
        assert levels == sorted(levels)
        for node in levels[:-1]:
            assert tree.voxels[tree.parent[node]] >= 1.25 * tree.voxels[node]
        assert set(levels) <= set(tree.ancestors(leaf).tolist())


def test_the_wheel_stops_at_both_ends(tree):
    part = tree.at(INSIDE[1])
    assert part.larger(100).level == len(part.levels) - 1
    assert part.smaller(100).level == 0
    assert part.at_level(part.level) == part
    sizes = [tree.voxels[nodes[0]] for nodes in part.levels]
    assert sizes == sorted(sizes)
    assert all(0 <= part.at_level(k).confidence <= 1 for k in range(len(sizes)))
    assert tree.prominence(tree.root) == 1


def test_clicks_choose_the_level(tree):
    one, two = INSIDE[1], INSIDE[2]
    part = tree.at(one, negative=[two])
    for nodes in part.levels:
        inside = tree.leaf_mask(nodes)[tree.cells]
        assert inside[one]
        assert not inside[two]
    both = tree.at(one, two)
    assert all(tree.leaf_mask(n)[tree.cells][one] for n in both.levels)
    assert all(tree.leaf_mask(n)[tree.cells][two] for n in both.levels)
    # Blocks 1 and 2 without block 3 between them may be no single node; the places decide.
    union = tree.at(one, two, negative=[INSIDE[3], (0, 0, 0)])
    inside = tree.leaf_mask(union.nodes)[tree.cells]
    assert inside[one]
    assert inside[two]
    assert not inside[INSIDE[3]]
    assert not inside[0, 0, 0]
    assert union.positive == (one, two)


def test_places_next_to_each_other_may_need_several_nodes(tree):
    """Two leaves that only the root joins, with a third excluded."""
    a, b = (int(np.flatnonzero(tree.leaf_mask(int(c)))[0]) for c in tree.children[-1])
    halves = tree.children[-1]
    outside = np.flatnonzero(tree.leaf_mask(int(halves[0])))[-1]
    places = [tuple(np.argwhere(tree.cells == leaf)[0]) for leaf in (a, b, outside)]
    part = tree.at(places[0], places[1], negative=[places[2]])
    assert len(part.nodes) == 2
    assert part.is_determined
    inside = tree.leaf_mask(part.nodes)[tree.cells]
    assert inside[places[0]]
    assert inside[places[1]]
    assert not inside[places[2]]


def test_bad_places(tree):
    with pytest.raises(GeometryError, match=r"\(99.0, 0.0, 0.0\) lies outside of the image"):
        tree.at((99, 0, 0))
    with pytest.raises(GeometryError, match="three finite numbers"):
        tree.at((np.nan, 0, 0))
    with pytest.raises(ParameterError, match="at least one place"):
        tree.at()
    with pytest.raises(ParameterError, match="same cell"):
        tree.at((4, 8, 8), negative=[(4, 8, 8)])
    with pytest.raises(ParameterError, match="has nodes 0 to"):
        tree.mask(len(tree))
    with pytest.raises(GeometryError, match="no plane 8 across axis 0"):
        tree.outline(3, 0, 8)


def test_masks_are_memberships_rendered(tree, field, truth):
    """Against the field's own renderer: a channel that is 1 at the members."""
    node = tree.best_node(truth == 3)[0]
    member = tree.leaf_mask(node)[tree.gaussian_leaf].astype(np.float32)
    arrays = {name: getattr(field, name) for name in GaussianField.tensor_names()}
    arrays.update(values=member[:, None], background=np.zeros(1))
    info = field.with_info(
        image_channels=("part",), intensity_scale=(1.0,), intensity_offset=(0.0,), eps=1e-6
    ).info
    expected = mg.render(GaussianField(**arrays, info=info))[0]
    shares = tree.soft_mask(node)
    covered = expected > 1e-3
    assert np.allclose(shares[covered], expected[covered], atol=2e-2)
    for axis in range(3):
        index = tree.grid.shape[axis] // 2
        assert np.allclose(
            tree.plane(node, axis, index), np.take(shares, index, axis=axis), atol=1e-4
        )
    assert np.array_equal(tree.mask(node), shares > 0.5)


def test_tiny_parts_are_their_cells(tree):
    """A part hardly visible in the blend still has a mask."""
    for leaf in range(0, tree.leaves, 11):
        if tree.voxels[leaf]:
            assert tree.mask(leaf).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_outlines_are_closed_and_hold_the_part(tree, truth, axis):
    node = tree.best_node(truth == 3)[0]
    index = INSIDE[3][axis]
    lines = tree.outline(node, axis, index)
    mask = np.take(tree.mask(node), index, axis=axis)
    inside = np.zeros(mask.shape, bool)
    for line in lines:
        assert np.array_equal(line[0], line[-1])
        inside ^= grid_points_in_poly(mask.shape, line)
    assert (inside != mask).mean() < 0.02


def test_an_outline_closes_at_the_border(tree):
    (line,) = tree.outline(tree.root, 0, 3)
    assert np.array_equal(line[0], line[-1])
    assert line.min() >= -1
    assert (line.max(0) <= np.array(tree.grid.shape[1:])).all()


def test_cuts_nest_and_keep_their_numbers(tree):
    least = 1e-3 * tree.covered
    before = None
    for count in range(2, 12):
        cut = tree.cut(count)
        labels = cut.labels(rendered=False)
        sizes = np.bincount(labels.ravel())[1:]
        assert len(cut) == len(sizes) == count
        assert (sizes >= least).all()
        assert sizes.sum() == labels.size
        if before is not None:
            pairs = np.unique(np.stack([labels.ravel(), before.ravel()], 1), axis=0)
            assert len(pairs) == count  # every part lies within one of the coarser parts
            same = (labels == before) | (labels == count)
            assert same.all()
        before = labels
    assert tree.cut(9).nodes == tree.cut(9).nodes


def test_a_cut_separates_the_blocks(tree, truth):
    labels = tree.cut(4).labels()
    for label in (1, 2, 3):
        values, counts = np.unique(labels[truth == label], return_counts=True)
        assert dice(labels == values[counts.argmax()], truth == label) > 0.9
    smooth, rough = tree.cut(6).labels(), tree.cut(6).labels(rendered=False)
    assert (smooth == rough).mean() > 0.9


def test_cuts_that_cannot_be(tree):
    with pytest.raises(ParameterError, match="2 parts or more, not 1"):
        tree.cut(1)
    with pytest.raises(ParameterError, match="fewer than the 1,000,000 parts"):
        tree.cut(1_000_000)
    with pytest.raises(ParameterError, match=r"least size must be from 0 to 0\.5"):
        tree.cut(3, 0.7)
    assert len(tree.cut(50, 0.05)) < 50


def test_bad_masks(tree):
    with pytest.raises(ParameterError, match="mask is empty"):
        tree.best_node(np.zeros(tree.grid.shape))
    with pytest.raises(GeometryError, match=r"mask has shape \(2, 2, 2\)"):
        tree.best_node(np.ones((2, 2, 2)))


def test_bad_images(volume, field):
    with pytest.raises(ImageError, match="constant"):
        mg.part_tree(mg.Volume.from_array(np.full((4, 8, 8), 7.0)))
    with pytest.raises(GeometryError, match="another grid"):
        mg.part_tree(mg.Volume.from_array(np.eye(9)), field=field)
    with pytest.raises(ParameterError, match="no Gaussians"):
        mg.part_tree(volume, field=field.subset(np.zeros(len(field), bool)))
    with pytest.raises(ParameterError, match="or a field alone"):
        mg.part_tree(field, field=field)
    with pytest.raises(GeometryError, match="fit the field to this image"):
        build_tree(np.zeros((1, 2, 3, 4), np.float32), field)
    with pytest.raises(ParameterError, match="single cell"):
        build_tree(volume.data, one_cell(field))
    with pytest.raises(Cancelled):
        mg.part_tree(volume, field=field, should_stop=lambda: True)
    with pytest.raises(ParameterError, match="noise must be above 0"):
        PartParams(noise=-1)


def one_cell(field):
    one = field.subset(np.array([0]))
    one.log_precision[:] = -8
    return one


@pytest.mark.parametrize("case", ["2d", "colors", "thick", "several"])
def test_images_of_all_kinds(case, rng):
    scale = {"colors": 3, "several": 2}.get(case, 1)
    image = rng.normal(0, 3, (scale, 5, 40, 40)).astype(np.float32)
    image[:, :, 8:24, 10:30] += np.array([90, -60, 40])[:scale, None, None, None]
    spacing = (9.0, 1.0, 1.0) if case == "thick" else (1.0, 1.0, 1.0)
    if case == "2d":
        image = image[:, :1]
    volume = mg.Volume.from_array(image, spacing=spacing)
    tree = mg.part_tree(volume)
    truth = np.zeros(volume.shape, bool)
    truth[:, 8:24, 10:30] = True
    part = tree.at((0 if case == "2d" else 2, 16, 20))
    assert max(dice(tree.mask(nodes), truth) for nodes in part.levels) > 0.9


def test_a_field_alone_divides_its_own_image(field, truth):
    tree = mg.part_tree(field)
    assert all(tree.best_node(truth == label)[1] > 0.9 for label in (1, 2, 3))


def test_empty_space_is_a_part_of_its_own(rng):
    """Voxels that no Gaussian reaches have leaves, too."""
    image = np.zeros((6, 40, 40), np.float32)
    image[:, 4:16, 4:16] = 50 + rng.normal(0, 3, (6, 12, 12))
    image[:, 4:16, 10:16] += 60
    volume = mg.Volume.from_array(image)
    tree = mg.part_tree(volume, field=mg.fit(volume, mg.FitParams(iterations=40)).field)
    assert len(tree.empty_anchor) >= 1
    assert tree.covered < image.size
    assert tree.voxels[tree.root] == image.size
    corner = tree.at((3, 35, 35))
    assert tree.mask(corner.nodes)[3, 35, 35]
    assert not tree.mask(corner.smaller(99).nodes)[3, 8, 8]


def test_a_tree_moves_with_its_gaussians(tree, field, truth):
    order = field.morton_order()
    moved = move_tree(tree, field.subset(order), order)
    assert np.array_equal(moved.cells, tree.cells)
    assert np.array_equal(moved.voxels, tree.voxels)
    node = tree.best_node(truth == 1)[0]
    assert np.allclose(moved.soft_mask(node), tree.soft_mask(node), atol=1e-5)
    kept = np.sort(np.random.default_rng(0).permutation(len(field))[: int(0.8 * len(field))])
    pruned = move_tree(tree, field.subset(kept), kept)
    assert pruned.voxels[pruned.root] == tree.cells.size
    assert pruned.best_node(truth == 1)[1] > 0.8
    rounded = field.copy()
    rounded.centers[:] = rounded.centers.astype(np.float16)
    again = move_tree(tree, rounded)
    assert again.field_digest != tree.field_digest
    assert (again.cells == tree.cells).mean() > 0.99
    with pytest.raises(ParameterError, match="not those of the tree"):
        move_tree(tree, field.subset(kept))
    finer = field.on_grid(field.info.grid.with_spacing((1.0, 1.0, 1.0)))
    with pytest.raises(GeometryError, match="the tree"):
        move_tree(tree, finer)


def test_a_tree_without_a_field_makes_no_masks(tree):
    from dataclasses import replace

    with pytest.raises(MedGSError, match="no field to render"):
        replace(tree, renderer=None).mask(0)
