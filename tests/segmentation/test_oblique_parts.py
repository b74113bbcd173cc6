"""Thin parts that annotated slices cut far apart go on between them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.segmentation.term_params import ShapeParams
from napari_medgs.segmentation.terms.oblique_parts import FIXED, MOVED, UNKNOWN, oblique_parts
from napari_medgs.segmentation.terms.shape_prior import shape_prior

SPACING = np.ones(3)
SHAPE = (20, 40)


def square(at, side=4):
    plane = np.zeros(SHAPE, np.uint8)
    plane[at[0] : at[0] + side, at[1] : at[1] + side] = 1
    return plane


def probability(planes, points, depth=3.0):
    """Return the probability of class 1 at points, slices 8 apart."""
    params = ShapeParams(oblique_depth=depth)
    prior = shape_prior(np.stack(planes), 8 * np.arange(len(planes)), 0, SPACING, 2, params)
    cost = np.zeros((len(points), 2), np.float32)
    prior.add_cost(np.asarray(points, np.float32), cost, 1.0)
    return np.exp(-cost[:, 1]), prior


def test_a_rod_that_slices_cut_far_apart_goes_on_between_them():
    planes = [square((4, 4)), square((10, 24))]
    on, off = (4, 8.5, 15.5), (4, 8.5, 33)
    moved, prior = probability(planes, [on, off])
    fixed, _ = probability(planes, [on, off], depth=0.0)
    np.testing.assert_allclose(prior.moves[0, 1], (6, 20))
    assert moved[0] > 0.6 > 0.1 > fixed[0]
    assert moved[1] < 0.1
    # A quarter of the way from the first slice it has moved by a quarter.
    places = [(2, 7, x) for x in np.arange(4, 30, 0.5)]
    along, _ = probability(planes, places)
    assert places[int(along.argmax())][2] == pytest.approx(10.5, abs=0.5)


def test_the_prior_is_left_as_it_is_where_interpolation_shows_the_class():
    planes = [square((4, 4)), square((5, 5))]
    points = [(z, y, x) for z in (2.5, 4) for y in range(20) for x in range(40)]
    with_it, prior = probability(planes, points)
    without, _ = probability(planes, points, depth=0.0)
    assert (prior.kinds == FIXED).all()
    np.testing.assert_array_equal(with_it, without)


def test_of_several_parts_nothing_is_known_between():
    planes = [np.maximum(square((2, 2)), square((12, 2))), square((7, 30))]
    found, prior = probability(planes, [(4, 8.5, 17), (4, 2, 38)])
    assert prior.kinds.tolist() == [[FIXED, UNKNOWN]]
    np.testing.assert_allclose(found, 0.5, atol=1e-6)


@pytest.mark.parametrize(("side", "kind"), [(4, MOVED), (5, MOVED), (7, FIXED)])
def test_only_thin_parts_move(side, kind):
    planes = [square((2, 2), side), square((10, 28), side)]
    _, prior = probability(planes, [(4, 5, 5)])
    assert prior.kinds[0, 1] == kind


def test_classes_that_begin_and_end_anywhere_do_not_move():
    planes = np.stack([square((2, 2)), square((10, 28))])
    distances = np.where(planes[:, None] == np.arange(2)[:, None, None], 2.0, -2.0)
    assert oblique_parts(planes, distances, 3.0)[1][0, 1] == MOVED
    assert oblique_parts(planes, distances, 3.0, frozenset({1}))[1][0, 1] == FIXED
