"""Strokes that are alone in their slice, and when they correct the mask near them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import (
    Prompts,
    SegmentModel,
    SegmentParams,
    fit_for_segmentation,
    voxel_model,
)
from napari_medgs.segmentation.advanced import InitialMaskParams, SolverParams
from napari_medgs.segmentation.corrections import extending_strokes, flooding_strokes
from napari_medgs.segmentation.prompts.lone_strokes import lone_strokes
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.snapshots import PromptSnapshot
from napari_medgs.segmentation.voxel_model import VoxelModel
from tests.segmentation.conftest import overlap

SHAPE, BACKGROUND = (40, 48, 48), 9


def rod() -> NDArray[np.bool_]:
    y, x = np.indices(SHAPE)[1:]
    return (y - 24) ** 2 + (x - 22) ** 2 < 49


@pytest.fixture(scope="module")
def model() -> SegmentModel:
    """A rod through all slices; a bump beside it that looks the same in slices 14 to 18."""
    image = np.where(rod(), 100.0, 60.0)
    image[14:19, 20:29, 28:38] = 100
    image += np.random.default_rng(0).normal(0, 5, SHAPE)
    volume = Volume.from_array(image.astype(np.float32))
    return SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=15)))


def strokes() -> NDArray[np.uint8]:
    marks = np.zeros(SHAPE, np.uint8)
    marks[30, 24, 18:27] = 1
    marks[30, 12, 16:29] = marks[30, 36, 16:29] = BACKGROUND
    return marks


def mask_of(model: SegmentModel, marks: NDArray[np.uint8], **options: bool) -> NDArray[np.bool_]:
    result = model.update(Prompts(labels=marks, background=BACKGROUND), **options)
    return np.asarray(result.labels == 1)


@pytest.mark.parametrize("z", [5, 24, 28, 32])
def test_a_background_stroke_beside_a_class_leaves_it(model: SegmentModel, z: int) -> None:
    marks = strokes()
    before = mask_of(model, marks)
    marks[z, 36, 16:29] = BACKGROUND
    assert overlap(mask_of(model, marks), before) > 0.98


def test_a_background_stroke_in_a_leak_takes_it_away_and_nothing_else(
    model: SegmentModel,
) -> None:
    marks = strokes()
    leak = np.zeros(SHAPE, bool)
    leak[14:19, 20:29, 30:38] = True
    before = mask_of(model, marks)
    assert before[leak].mean() > 0.5  # else the test could not fail
    marks[16, 22:27, 34] = BACKGROUND
    after = mask_of(model, marks)
    assert not after[16, 22:27, 34].any()
    assert after[leak].mean() < 0.75 * before[leak].mean()
    far = np.ones(SHAPE, bool)
    far[8:25] = False
    assert (after == before)[far].all()
    assert overlap(after, rod()) > overlap(before, rod())


def test_a_quick_update_corrects_nearly_as_the_full_one_does(
    model: SegmentModel,
) -> None:
    marks = strokes()
    marks[16, 22:27, 34] = BACKGROUND
    mask_of(model, marks)
    marks[15, 22:27, 34] = BACKGROUND
    prompts = Prompts(labels=marks, background=BACKGROUND)
    quick = model.update(prompts, quick=True)
    assert quick.incremental
    full = model.update(prompts)
    assert not full.incremental
    assert overlap(np.asarray(quick.labels == 1), np.asarray(full.labels == 1)) > 0.99


def test_the_first_quick_correction_is_one_of_the_last_mask(
    model: SegmentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = strokes()
    before = mask_of(model, marks)
    marks[16, 22:27, 34] = BACKGROUND
    prompts = Prompts(labels=marks, background=BACKGROUND)
    extended: list[Markers] = []
    extension = voxel_model.correction_of

    def watched(*given: Any) -> Any:
        extended.append(given[2])
        return extension(*given)

    monkeypatch.setattr(voxel_model, "correction_of", watched)
    quick = model.update(prompts, quick=True)
    assert quick.incremental
    (markers,) = extended
    kept = markers.kept
    assert kept is not None
    np.testing.assert_array_equal(kept.classes, before)
    found, full = (np.asarray(r.labels == 1) for r in (quick, model.update(prompts)))
    assert not kept.where[found != before].any()
    assert overlap(found, full) > 0.98
    assert overlap(found, rod()) > overlap(before, rod())


def test_the_first_correction_does_not_solve_the_last_mask_again(
    model: SegmentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = strokes()
    mask_of(model, marks)
    marks[16, 22:27, 34] = BACKGROUND
    solved: list[PromptSnapshot] = []
    solve = VoxelModel._solve

    def counted(self: VoxelModel, setup: Any, snapshot: PromptSnapshot, timer: Any) -> Any:
        solved.append(snapshot)
        return solve(self, setup, snapshot, timer)

    monkeypatch.setattr(VoxelModel, "_solve", counted)
    known = mask_of(model, marks)
    assert len(solved) == 1
    other = strokes()
    other[30, 24, 18] = 0
    mask_of(model, other)
    solved.clear()
    anew = mask_of(model, marks)
    assert len(solved) == 2
    np.testing.assert_array_equal(anew, known)


def test_the_mask_is_solved_again_when_a_class_is_locked(model: SegmentModel) -> None:
    marks = strokes()
    marks[16, 22:27, 34] = BACKGROUND
    prompts = Prompts(labels=marks, background=BACKGROUND)
    free = model.update(prompts).labels
    other = np.zeros(SHAPE, np.uint8)
    other[34:38, 17:32, 15:30] = 2
    held = replace(prompts, locked=frozenset({2}), result=other)
    known = model.update(held).labels
    np.testing.assert_array_equal(known == 2, other == 2)
    model.update(Prompts(labels=strokes(), background=BACKGROUND))  # forgets the corrected mask
    np.testing.assert_array_equal(model.update(held).labels, known)
    np.testing.assert_array_equal(model.update(prompts).labels, free)


def test_a_removed_correction_gives_the_mask_before_it(model: SegmentModel) -> None:
    marks = strokes()
    before = mask_of(model, marks)
    marks[16, 22:27, 34] = BACKGROUND
    assert (mask_of(model, marks) != before).any()
    marks[16] = 0
    np.testing.assert_array_equal(mask_of(model, marks), before)


def test_without_the_rule_all_strokes_are_learned_from(model: SegmentModel) -> None:
    marks = strokes()
    marks[16, 22:27, 34] = BACKGROUND
    corrected = mask_of(model, marks)
    default = model.params
    model.params = SegmentParams(
        advanced=SolverParams(initial_mask=InitialMaskParams(max_flood=0.0))
    )
    learned = mask_of(model, marks)
    model.params = default
    assert (learned != corrected).any()


def test_strokes_that_show_the_background_first_are_learned_from(model: SegmentModel) -> None:
    marks = strokes()
    marks[30, 36] = 0  # 13 voxels of the background beside 9 of the class
    marks[16, 22:27, 34] = BACKGROUND
    found = mask_of(model, marks)
    default = model.params
    model.params = SegmentParams(
        advanced=SolverParams(initial_mask=InitialMaskParams(max_flood=0.0))
    )
    np.testing.assert_array_equal(found, mask_of(model, marks))
    model.params = SegmentParams(
        advanced=SolverParams(initial_mask=InitialMaskParams(min_background=0.0))
    )
    corrected = mask_of(model, marks)
    model.params = default
    assert (found != corrected).any()


def test_a_flooding_mask_is_not_kept() -> None:
    # The class is all that is bright; in other slices a plate is as bright, and much larger.
    image = np.where(rod(), 100.0, 60.0)
    image[:20, 2:46, 32:46] = image[:20, 20:28, 22:46] = 108
    image += np.random.default_rng(0).normal(0, 4, SHAPE)
    volume = Volume.from_array(image.astype(np.float32))
    model = SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=15)))
    marks = strokes()
    before = mask_of(model, marks)
    assert before[10].sum() > 2.5 * before[30].sum()  # else the test could not fail
    marks[10, 10:40, 40] = BACKGROUND
    after = mask_of(model, marks)
    default = model.params
    model.params = replace(
        default, advanced=SolverParams(initial_mask=InitialMaskParams(max_flood=0.0))
    )
    np.testing.assert_array_equal(after, mask_of(model, marks))


def markers_of(marks: NDArray[np.uint8]) -> Markers:
    voxels = np.argwhere(marks).astype(np.int32)
    values = marks[tuple(voxels.T)]
    none = np.zeros(0, np.int32)
    classes = np.where(values == BACKGROUND, 0, values).astype(np.int32)
    return Markers(
        tuple(range(int(classes.max()) + 1)), voxels, classes,
        none.reshape(0, 3), none, user_marked=np.ones(len(voxels), bool),
    )  # fmt: skip


def test_strokes_are_alone_in_the_slice_that_they_were_drawn_in() -> None:
    marks = strokes()
    marks[20, 5, 5:9] = BACKGROUND  # alone
    marks[21, 5, 5:12] = BACKGROUND  # alone, touching the one before
    marks[2:12, 40, 30] = marks[2:12, 41, 31] = BACKGROUND  # of another orientation, alone
    marks[33:39, 24, 40] = BACKGROUND  # in a slice of rows, beside a class
    markers = markers_of(marks)
    found = np.zeros(SHAPE, int)
    found[tuple(markers.voxels.T)] = lone_strokes(markers)
    assert not found[30].any()
    assert (found[20, 5, 5:9] > 0).all()
    assert (found[21, 5, 5:12] > 0).all()
    assert (found[2:12, 40, 30] > 0).all()
    assert not found[33:39].any()


def test_one_voxel_of_a_class_in_the_slice_is_company() -> None:
    marks = strokes()
    marks[20, 5, 5:9] = BACKGROUND
    assert lone_strokes(markers_of(marks)).any()
    marks[20, 24, 22] = 1
    assert not lone_strokes(markers_of(marks)).any()


def test_a_class_is_alone_where_nothing_else_is_marked() -> None:
    marks = strokes()
    marks[10, 24, 18:22] = 1
    alone = marks[tuple(markers_of(marks).voxels.T)] * (lone_strokes(markers_of(marks)) > 0)
    assert np.bincount(alone)[1:].tolist() == [4]
    marks[10, 5, 5] = BACKGROUND
    assert not lone_strokes(markers_of(marks)).any()


def test_a_class_that_nothing_else_shows_is_not_alone() -> None:
    marks = strokes()
    marks[10, 24, 18:22] = 2
    assert not lone_strokes(markers_of(marks)).any()


@pytest.fixture(scope="module")
def alike() -> SegmentModel:
    """A rod that is darker in slices 0 to 19, where something larger beside it looks alike."""
    image = np.where(rod(), 100.0, 60.0)
    image[:20, 2:46, 32:46] = image[:20, 20:28, 26:46] = 80
    image[:20][rod()[:20]] = 85
    image += np.random.default_rng(0).normal(0, 4, SHAPE)
    volume = Volume.from_array(image.astype(np.float32))
    return SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=15)))


def test_a_class_stroke_that_would_flood_corrects(alike: SegmentModel) -> None:
    marks = strokes()
    before = mask_of(alike, marks)
    marks[10, 24, 19:26] = 1
    after = mask_of(alike, marks)
    default = alike.params
    never = InitialMaskParams(max_widening=1e6)
    alike.params = SegmentParams(advanced=SolverParams(initial_mask=never))
    learned = mask_of(alike, marks)
    alike.params = default
    assert overlap(learned, rod()) < overlap(before, rod()) - 0.1  # else the test could not fail
    assert overlap(after, rod()) > overlap(before, rod()) + 0.1
    assert after[10, 24, 19:26].all()


def test_a_class_stroke_that_does_not_flood_is_learned_from(model: SegmentModel) -> None:
    marks = strokes()
    marks[5, 21:28, 22] = 1
    default = model.params
    found = mask_of(model, marks)
    never = InitialMaskParams(max_widening=1e6)
    model.params = SegmentParams(advanced=SolverParams(initial_mask=never))
    np.testing.assert_array_equal(found, mask_of(model, marks))
    model.params = default


@pytest.mark.parametrize(
    ("reached", "larger", "corrects"), [(False, 0, False), (True, 0, True), (False, 28, True)]
)
def test_strokes_that_are_most_of_what_shows_a_class(
    reached: bool, larger: int, corrects: bool
) -> None:
    marks = strokes()
    marks[10, 24, 18:27] = 1
    markers = replace(markers_of(marks), values=(0, 1, 2))
    before, after = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    before[25:35][rod()[25:35]] = after[rod()] = 1
    before[30, 2:12, 2:40] = after[30, 2:12, 2:40] = 2
    before[10, 30, 22] = reached  # the class reaches the slice
    after[5:20, max(0, 10 - larger) : 38 + larger, 10 : 20 + larger] = 1
    lone = lone_strokes(markers)
    extending = extending_strokes(markers, lone, before)
    assert extending.sum() == 9
    found = flooding_strokes(markers, lone, extending, before, after, InitialMaskParams())
    assert found.sum() == 9 * corrects


def test_only_the_class_that_floods_corrects() -> None:
    voxels = np.array([[10, 24, 20], [10, 24, 30]], np.int32)
    markers = replace(markers_of(strokes()), values=(0, 1, 2))
    markers = replace(
        markers,
        voxels=np.concatenate([markers.voxels, voxels]),
        classes=np.concatenate([markers.classes, [1, 2]]).astype(np.int32),
        user_marked=np.ones(len(markers.voxels) + 2, bool),
    )
    extending = np.arange(len(markers.voxels)) >= len(markers.voxels) - 2
    lone = extending.astype(np.int64)
    before, after = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    before[20, :10, :10], before[20, 20:30, :10] = 1, 2
    after[20:22, :10, :17], after[20:24, 20:30, :15] = 1, 2  # one is wider, both are larger
    found = flooding_strokes(markers, lone, extending, before, after, InitialMaskParams())
    assert markers.classes[found].tolist() == [1]
    after[21] = 0  # wider, not much larger
    assert not flooding_strokes(markers, lone, extending, before, after, InitialMaskParams()).any()
