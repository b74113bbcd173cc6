"""Polygons on a pixel grid, against scikit-image and matplotlib."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path
from skimage.draw import polygon2mask

from napari_medgs.io.dicom.contours import fill_polygons, outline_mask

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def area(polygon):
    after = np.roll(polygon, -1, axis=0)
    return abs((polygon[:, 0] * after[:, 1] - polygon[:, 1] * after[:, 0]).sum()) / 2


@settings(deadline=None)  # The first call imports the libraries.
@given(MASKS)
def test_outlines_enclose_exactly_the_pixels(mask):
    polygons = outline_mask(mask)
    np.testing.assert_array_equal(fill_polygons(polygons, mask.shape), mask)
    by_skimage, by_matplotlib = np.zeros((2, *mask.shape), bool)
    for polygon in polygons:
        by_skimage |= polygon2mask(mask.shape, polygon)
        inside = Path(polygon).contains_points(np.argwhere(np.ones_like(mask)))
        by_matplotlib |= inside.reshape(mask.shape)
    np.testing.assert_array_equal(by_skimage, mask)
    np.testing.assert_array_equal(by_matplotlib, mask)
    assert sum(map(area, polygons)) == pytest.approx(mask.sum())


@settings(deadline=None)  # The first call imports the libraries.
@given(st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=8))
def test_any_polygon_is_filled_by_the_even_odd_rule(points):
    # Off the pixel centers, on which the two may differ.
    polygon = np.floor(np.array(points) * 16) / 16 + 0.03
    np.testing.assert_array_equal(fill_polygons([polygon], (9, 8)), _even_odd(polygon, (9, 8)))


def _even_odd(polygon, shape):
    """Count the edges to the left of each center, in plain Python."""
    found = np.zeros(shape, bool)
    for r, c in np.ndindex(shape):
        for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if (r0 <= r) != (r1 <= r) and c0 + (r - r0) * (c1 - c0) / (r1 - r0) <= c:
                found[r, c] ^= True
    return found


def test_contours_within_each_other_are_holes():
    squares = [np.array([[a, a], [a, b], [b, b], [b, a]]) for a, b in ((0.5, 8.5), (2.5, 6.5))]
    filled = fill_polygons([*squares, squares[1] / 4 + 3], (10, 10))
    expected = np.zeros((10, 10), bool)
    expected[1:9, 1:9] = True
    expected[3:7, 3:7] = False
    expected[4, 4] = True
    np.testing.assert_array_equal(filled, expected)


def test_a_channel_through_pixel_centers_leaves_no_trace():
    ring = np.array([[0, 0], [0, 6], [6, 6], [6, 0], [3, 0], [3, 2], [2, 2], [2, 4], [4, 4],
                     [4, 2], [3, 2], [3, 0]], float)  # fmt: skip
    filled = fill_polygons([ring], (7, 7))
    expected = np.zeros((7, 7), bool)
    expected[:6, :6] = True
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(filled, expected)


def test_polygons_beyond_the_picture_are_cut():
    square = np.array([[-4.0, -9], [-4, 2.5], [1.5, 2.5], [1.5, -9]])
    filled = fill_polygons([square, square[:2]], (4, 5))
    assert filled.sum() == 6
    assert filled[:2, :3].all()
    assert not fill_polygons([], (4, 5)).any()
