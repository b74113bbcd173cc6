"""A thicker brush, or a class painted up to its border, makes no mask worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.morphology import dilation, disk

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Point, Prompts, SegmentModel
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.thinning import on_middle_lines
from tests.segmentation.conftest import overlap

BACKGROUND = 9
PAINTED = 99  # instead of a brush: all of the class


def markers_of(labels, **more):
    """Return the markers of drawn labels, ``BACKGROUND`` as class 0."""
    voxels = np.argwhere(labels)
    classes = labels[tuple(voxels.T)]
    none = np.zeros((0, 3), np.int32), np.zeros(0, np.int32)
    return Markers(
        (0, 1),
        voxels.astype(np.int32),
        np.where(classes == BACKGROUND, 0, classes).astype(np.int32),
        *none,
        user_marked=np.ones(len(voxels), bool),
        **more,
    )


@pytest.fixture
def drawn():
    """A thick stroke and a thin one of the background in two slices."""
    labels = np.zeros((9, 40, 40), int)
    for z in (2, 6):
        labels[z, 10:19, 8:30] = 1
        labels[z, 35, 4:36] = BACKGROUND
    return labels


def test_thick_strokes_are_reduced_to_their_middle_lines(drawn):
    markers = markers_of(drawn)
    middle = on_middle_lines(markers)
    assert middle[markers.classes == 0].all()
    own = markers.voxels[middle & (markers.classes == 1)]
    assert len(own) < 0.15 * (drawn == 1).sum()
    assert set(own[:, 0]) == {2, 6}
    assert {13, 14} & set(own[:, 1])


def test_slices_without_background_hold_thick_strokes_too(drawn):
    drawn[4, 10:19, 8:30] = 1
    drawn[7, 12:14, 8:10] = 1  # too little to say that a slice was drawn in
    markers = markers_of(drawn)
    assert markers.slices_without_background().tolist() == [4]
    thinned = markers.voxels[~on_middle_lines(markers)]
    assert set(thinned[:, 0]) == {2, 4, 6}


def test_thin_strokes_stay_whole():
    labels = np.zeros((3, 40, 40), int)
    labels[1, 5:7, 4:30], labels[1, 20, 4:30], labels[1, 30:33, 10] = 1, BACKGROUND, 1
    assert on_middle_lines(markers_of(labels)).all()


def test_fully_labeled_slices_and_points_are_no_strokes(drawn):
    assert not on_middle_lines(markers_of(drawn)).all()
    assert on_middle_lines(markers_of(drawn, clicked=True)).all()
    full = markers_of(drawn, fully_labeled={0: np.array([2])})
    thinned = full.voxels[~on_middle_lines(full)]
    assert set(thinned[:, 0]) == {6}


def test_slices_of_other_orientations_are_looked_at_in_theirs(drawn):
    turned = np.moveaxis(drawn, 0, 2)
    here, there = markers_of(drawn), markers_of(turned)
    one = {tuple(v) for v in here.voxels[on_middle_lines(here)]}
    assert one == {(z, y, x) for y, x, z in there.voxels[on_middle_lines(there)]}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_each_component_keeps_a_marker(seed, width):
    rng = np.random.default_rng(seed)
    labels = np.zeros((1, 64, 64), int)
    labels[0, 0, :5] = BACKGROUND
    for y, x in rng.integers(6, 50, (4, 2)):
        labels[0, y : y + width, x : x + int(rng.integers(1, 14))] = 1
    from scipy.ndimage import label

    markers = markers_of(labels)
    parts, count = label(labels[0] == 1, np.ones((3, 3)))
    left = markers.voxels[on_middle_lines(markers) & (markers.classes == 1)]
    assert set(parts[tuple(left[:, 1:].T)]) == set(range(1, count + 1))


@pytest.fixture(scope="module")
def scene():
    """An ellipsoid that shifts from slice to slice, in texture and noise."""
    shape = (28, 48, 48)
    z, y, x = np.indices(shape)
    row = 24 + 0.25 * (z - 14)
    inside = ((z - 14) / 11) ** 2 + ((y - row) / 7) ** 2 + ((x - 24) / 9) ** 2 < 1
    rng = np.random.default_rng(1)
    texture = gaussian_filter(rng.normal(0, 120, shape), 3)
    image = gaussian_filter(100 + 60.0 * inside + texture, 0.8) + rng.normal(0, 18, shape)
    volume = Volume.from_array(image.astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=2500, iterations=40))
    return SegmentModel(volume, field), inside


def strokes(truth, slices, brush):
    """A line through the class, drawn with a brush that stays within, in a thin frame."""
    out = np.zeros(truth.shape, int)
    for z in slices:
        y, x = np.argwhere(truth[z]).mean(axis=0).round().astype(int)
        line = np.zeros(truth.shape[1:], bool)
        line[y, x - 3 : x + 4] = True
        wide = truth[z] if brush == PAINTED else dilation(line, disk(brush // 2)) & truth[z]
        out[z][wide] = 1
        for row in (4, 43):
            out[z, row, 6:42] = out[z, 6:42, row] = BACKGROUND
    return out


def masked(model, labels, **more):
    result = model.update(Prompts(labels=labels, background=BACKGROUND, **more))
    return result.labels == 1


@pytest.mark.parametrize("slices", [(14,), (8, 14, 20)])
def test_a_thicker_brush_makes_no_mask_worse(scene, slices):
    model, truth = scene
    dice = {}
    for brush in (1, 3, 5, 7, 11, PAINTED):
        drawn = strokes(truth, slices, brush)
        mask = masked(model, drawn)
        assert mask[drawn == 1].all()
        assert not mask[drawn == BACKGROUND].any()
        dice[brush] = overlap(mask, truth)
    assert dice[1] > 0.95
    assert min(dice.values()) > dice[1] - 0.02, dice


def test_a_class_painted_up_to_its_border_keeps_it_in_the_slice(scene):
    model, truth = scene
    slices = [8, 14, 20]
    mask = masked(model, strokes(truth, slices, PAINTED))
    assert overlap(mask[slices], truth[slices]) > 0.97


def test_a_painted_slice_without_background_makes_no_mask_worse(scene):
    """The background may have been marked in other slices only."""
    model, truth = scene
    drawn = strokes(truth, (8, 14, 20), 1)
    before = masked(model, drawn)
    drawn[11][truth[11]] = 1
    mask = masked(model, drawn)
    assert overlap(mask[11], truth[11]) > 0.97
    assert overlap(mask, truth) > overlap(before, truth) - 0.005


def test_what_lies_around_a_painted_class_is_not_of_it():
    """An organ whose core looks like what is around it: its border shows the class less well."""
    z, y, x = np.indices((24, 64, 64))
    organ, core = (
        ((x - 26) / a) ** 2 + ((y - 32) / b) ** 2 + ((z - 12) / c) ** 2 < 1
        for a, b, c in ((11, 14, 10), (7, 10, 6))
    )
    image = gaussian_filter(60 + 40.0 * (organ & ~core), 0.8)
    noise = np.random.default_rng(3).normal(0, 8, image.shape)
    volume = Volume.from_array((image + noise).astype(np.float32))
    field = fit_for_segmentation(volume, FitParams(gaussians=1500, iterations=20))
    drawn = np.zeros(organ.shape, int)
    for k in (5, 12, 19):
        drawn[k][organ[k]] = 1
        drawn[k, (3, 60), 4:60] = drawn[k, 4:60, 3] = drawn[k, 4:60, 60] = BACKGROUND
    mask = masked(SegmentModel(volume, field), drawn)
    assert min(overlap(mask[k], organ[k]) for k in (5, 12, 19)) > 0.98
    assert overlap(mask, organ) > 0.98


def test_a_quick_answer_after_a_painted_class_keeps_what_is_drawn(scene):
    model, truth = scene
    drawn = strokes(truth, (8, 20), PAINTED)
    full = masked(model, drawn)
    more = drawn.copy()
    more[14, 4, 6:42] = BACKGROUND
    result = model.update(Prompts(labels=more, background=BACKGROUND), quick=True)
    assert result.incremental
    mask = result.labels == 1
    assert not mask[more == BACKGROUND].any()
    assert mask[drawn == 1].all()
    assert overlap(mask, full) > 0.97


def test_a_point_against_a_painted_class_counts(scene):
    model, truth = scene
    drawn = strokes(truth, (8, 14, 20), PAINTED)
    place = (11, int(np.argwhere(truth[11])[:, 0].min()), 24)
    against = Point(place, 1, positive=False)
    mask = masked(model, drawn, points=[against])
    assert not mask[place]
    assert overlap(mask, truth) > 0.95


def test_progress_stays_within_its_total(scene):
    model, truth = scene
    events = []
    prompts = Prompts(labels=strokes(truth, (14,), PAINTED), background=BACKGROUND)
    model.update(prompts, progress=events.append)
    stages = [event.stage for event in events]
    assert stages.count("data terms") == 2  # they are fitted again without the painted border
    assert all(0 <= event.done <= event.total for event in events)
