"""Outlines follow structures from annotated slices to the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Point, Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.advanced import MotionPriorParams, ShapeParams, SolverParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.terms.shape_prior import shape_prior
from napari_medgs.segmentation.terms.slice_motion import SliceMotion, block_means, blocks_side

BACKGROUND = 9
DEPTH, SHIFT = 12, np.array([0.5, -1.0])  # slices; rows and columns that all moves a slice


def moving(shape=(48, 60), seed=0):
    """A smooth random texture that moves from slice to slice, (1, Z, Y, X)."""
    wide = gaussian_filter(np.random.default_rng(seed).normal(size=(90, 110)), 3)
    wide = (wide - wide.min()) / np.ptp(wide) * 6e4
    y, x = np.arange(shape[0])[:, None] + 20, np.arange(shape[1]) + 25
    planes = []
    for z in range(DEPTH):
        row, column = y - SHIFT[0] * z, (x - SHIFT[1] * z).astype(int)
        low = np.floor(row).astype(int)
        part = row - low
        planes.append((1 - part) * wide[low, column] + part * wide[low + 1, column])
    return np.stack(planes)[None].astype(np.uint16)


@pytest.mark.parametrize("voxels", [10**9, 20_000])
def test_a_texture_that_moves_is_followed_to_the_slices_on_both_sides(voxels):
    image = moving()
    motion = SliceMotion(image, MotionPriorParams(voxels=voxels))
    found = motion.trajectories(0, np.array([2, 9]))
    side = found.reduction
    assert (side == 1) == (voxels == 10**9)
    middle = tuple(n // 2 for n in found.places.shape[3:])
    for z in range(DEPTH):
        for which, source in ((0, 2 if z < 9 else 9), (1, 9 if z > 2 else 2)):
            if (which == 0 and z < 2) or (which == 1 and z > 9):
                continue
            place = (found.places[which, z, :, *middle] + 0.5) * side - 0.5
            here = (np.array(middle) + 0.5) * side - 0.5
            np.testing.assert_allclose(place, here - SHIFT * (z - source), atol=0.5 * side)


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_of_any_orientation_are_followed(axis):
    image = moving()
    turned = np.moveaxis(image, 1, axis + 1)
    slices = np.array([4])
    np.testing.assert_array_equal(
        SliceMotion(turned).trajectories(axis, slices).places,
        SliceMotion(image).trajectories(0, slices).places,
    )


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sets(st.integers(0, DEPTH - 1), min_size=1), min_size=2, max_size=4))
def test_what_was_followed_before_changes_nothing(sets):
    image = moving((20, 24))
    motion, results = SliceMotion(image), []
    for chosen in sets:
        slices = np.array(sorted(chosen))
        found = motion.trajectories(0, slices)
        fresh = SliceMotion(image).trajectories(0, slices)
        for side, there in enumerate(
            (np.arange(DEPTH) >= slices[0], np.arange(DEPTH) <= slices[-1])
        ):
            np.testing.assert_array_equal(found.places[side, there], fresh.places[side, there])
        results.append((found, found.places.copy()))
    for found, before in results:  # a result keeps its own places
        np.testing.assert_array_equal(found.places, before)


def test_blocks_are_means():
    image = moving((20, 24))
    expected = block_reduce(image.astype(np.float64), (1, 1, 4, 4), np.mean)
    np.testing.assert_allclose(block_means(image, 4), expected, rtol=1e-5)
    assert block_means(image, 7).shape == (1, DEPTH, 3, 4)
    assert blocks_side((10, 1, 3), 5) == 3  # no smaller than one block a slice


def test_past_the_outermost_slice_only_what_lies_outside_of_the_outline_costs():
    labels = np.zeros((1, 48, 60), np.uint8)
    labels[0, 18:30, 24:36] = 1
    motion = SliceMotion(moving())
    ways = motion.trajectories(0, np.array([2]))
    spacing = np.ones(3)

    def cost(points, outside=True, **changed):
        made = shape_prior(
            labels, np.array([2]), 0, spacing, 2, ShapeParams(**changed), trajectories=ways,
            outside=outside,
        )  # fmt: skip
        out = np.zeros((len(points), 2), np.float32)
        made.add_cost(np.array(points, np.float32), out, 1.0)
        return out

    z = 8
    center = (z, *(np.array([23.5, 29.5]) + SHIFT * (z - 2)))
    beside = (z, center[1], center[2] + 14)  # within the outline if it went straight on, but for 2
    rim = [(z, center[1], center[2] + x) for x in (0.0, 4.0, 8.0, 12.0)]
    found = cost([center, beside])
    assert (found[:, 0] == 0).all()
    assert found[0, 1] < 0.1 < 4.9 < found[1, 1] <= 5  # twice 2.5
    assert (np.diff(cost(rim)[:, 1]) >= 0).all()
    # Less the farther the slice is, nothing in the slice itself, or if it is not wanted.
    assert cost([(4, center[1], 55)])[0, 1] >= cost([(11, center[1], 45)])[0, 1]
    assert not cost([(2, 5, 5), (2.3, 5, 5)]).any()
    assert not cost([beside], outside=False).any()
    assert not cost([beside], outside_weight=0.0).any()


@pytest.fixture(scope="module")
def rods():
    """A rod that leans, and another one of the same look that comes to touch it."""
    z, y, x = np.indices((20, 56, 64))
    truth = np.hypot(y - 18, x - 16 - 1.5 * z) < 6
    other = np.hypot(y - np.maximum(44 - 1.5 * z, 29), x - 16 - 1.5 * z) < 6
    rng = np.random.default_rng(0)
    image = gaussian_filter(np.where(truth | other, 100.0, 60.0), (0, 0.7, 0.7))
    image += rng.normal(0, 8, z.shape)
    volume = Volume.from_array(image.astype(np.float32), spacing=(2, 1, 1))
    marks = np.zeros(truth.shape, np.int32)
    marks[5, 18, 20:27] = 1
    marks[5, 36, 21:26] = marks[5, 28, 14:34] = BACKGROUND
    marks[5, 8, 10:40], marks[5, 8:29, (12, 36)] = BACKGROUND, BACKGROUND
    field = fit_for_segmentation(volume, FitParams(gaussians=1500, iterations=20))
    return volume, field, truth, marks


def dice(guess, truth):
    return 2 * (guess & truth).sum() / max(guess.sum() + truth.sum(), 1)


def solved(rods, prompts, **motion):
    volume, field, *_ = rods
    advanced = SolverParams(motion=MotionPriorParams(**motion))
    return SegmentModel(volume, field, SegmentParams(advanced=advanced)).update(prompts).labels


def test_strokes_on_one_slice_follow_a_leaning_rod(rods):
    *_, truth, marks = rods
    prompts = Prompts(labels=marks, background=BACKGROUND)
    followed = dice(solved(rods, prompts) == 1, truth)
    straight = dice(solved(rods, prompts, voxels=0) == 1, truth)
    assert followed > 0.9
    assert followed > straight + 0.02


def test_clicks_are_no_outlines(rods):
    places = ((5, 18, 23), 1), ((5, 36, 23), BACKGROUND), ((5, 28, 23), BACKGROUND)
    prompts = Prompts(points=tuple(Point(p, k) for p, k in places), background=BACKGROUND)
    np.testing.assert_array_equal(solved(rods, prompts), solved(rods, prompts, voxels=0))


def test_no_motion_is_an_image_of_one_slice():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 24, 24)).astype(np.float32)
    image[0, 8:16, 8:16] += 6
    marks = np.zeros(image.shape, np.int32)
    marks[0, 11:13, 10:14], marks[0, 2:4, 2:20] = 1, BACKGROUND
    volume = Volume.from_array(image)
    field = fit_for_segmentation(volume, FitParams(gaussians=200, iterations=10))
    prompts = Prompts(labels=marks, background=BACKGROUND)
    model = SegmentModel(volume, field)
    found = model.update(prompts).labels
    assert dice(found[0, 8:16, 8:16] == 1, np.ones((8, 8), bool)) > 0.9
    off = replace(model.params, advanced=SolverParams(motion=MotionPriorParams(voxels=0)))
    model.params = off
    np.testing.assert_array_equal(model.update(prompts).labels, found)


def test_outlines_that_are_found_too_small_take_no_class_away():
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 56, 48)), indexing="ij")
    truth = (z**2 + y**2 + x**2 < 0.64).astype(np.uint8)
    inner = ((z - 0.1) / 0.4) ** 2 + ((y - 0.15) / 0.35) ** 2 + ((x + 0.1) / 0.4) ** 2 < 1
    truth[inner] = 2
    noise = np.random.default_rng(0).normal(0, 5, truth.shape)
    image = (np.array([20.0, 90.0, 170.0])[truth] + noise).astype(np.float32)
    marks = np.zeros(truth.shape, np.int32)
    for k in (
        8,
        14,
        20,
        26,
        32,
    ):  # rows, all in one coronal plane, where Gaussians show half of it
        for value in (0, 1, 2):
            row = truth[k, 28] == value
            marks[k, 28, row & np.roll(row, 2) & np.roll(row, -2)] = value or BACKGROUND
    volume = Volume.from_array(image, spacing=(3, 2, 2))
    model = SegmentModel(volume, fit_for_segmentation(volume))
    found = model.update(Prompts(labels=marks, background=BACKGROUND)).labels
    assert dice(found == 2, truth == 2) > 0.97
