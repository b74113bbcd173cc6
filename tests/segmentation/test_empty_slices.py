"""Slices past the structures in which only background is marked say that nothing is there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.empty_slices import empty_slices
from tests.segmentation.conftest import overlap

SHAPE = (40, 32, 32)


@pytest.fixture(scope="module")
def model() -> SegmentModel:
    """A bright rod through all slices: nothing in the image says where the upper half ends."""
    image = np.zeros(SHAPE, np.float32)
    image[:, 10:22, 10:22] = 100
    image += np.random.default_rng(0).normal(0, 4, SHAPE).astype(np.float32)
    volume = Volume.from_array(image)
    return SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=15)))


def _strokes(*empty: int) -> NDArray[np.uint8]:
    strokes = np.zeros(SHAPE, np.uint8)
    for z in (4, 12):
        strokes[z, 16, 12:20] = 1
        strokes[z, 5, 5:27] = 9
    for z in empty:
        strokes[z, 4, 3:29] = strokes[z, 27, 3:29] = 9  # beside the rod, not on it
    return strokes


def _found(model: SegmentModel, strokes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(model.update(Prompts(labels=strokes, background=9)).labels == 1)


def test_a_class_ends_at_a_slice_of_background_strokes(model: SegmentModel) -> None:
    without, found = _found(model, _strokes()), _found(model, _strokes(22))
    assert without[22].any()  # else the test could not fail
    assert not found[22].any()
    assert not found[24:].any()
    assert found[4:13, 12:20, 12:20].all()


def test_a_short_background_stroke_is_only_a_correction(model: SegmentModel) -> None:
    strokes = _strokes()
    strokes[16, 4, 3:6] = 9
    assert _found(model, strokes)[16, 12:20, 12:20].all()


def test_background_strokes_between_annotated_slices_do_not_empty_them(
    model: SegmentModel,
) -> None:
    assert _found(model, _strokes(8))[8, 12:20, 12:20].all()


def _markers(marks: NDArray[np.uint8]) -> Markers:
    voxels = np.argwhere(marks).astype(np.int32)
    classes = np.where(marks[tuple(voxels.T)] == 9, 0, marks[tuple(voxels.T)]).astype(np.int32)
    none = np.zeros(0, np.int32)
    return Markers(
        (0, 1, 2),
        voxels,
        classes,
        none.reshape(0, 3),
        none,
        user_marked=np.ones(len(voxels), bool),
    )


@pytest.mark.parametrize(
    ("lines", "empty"),
    [
        ([(14, slice(8, 18)), (14, slice(22, 28))], True),  # along the middle of both classes
        ([(14, slice(8, 18))], False),  # of one of them
        ([(10, slice(8, 18)), (18, slice(8, 28))], False),  # along their borders
        ([(5, slice(3, 30)), (25, slice(3, 30))], True),  # around all
    ],
)
def test_an_empty_slice_has_strokes_over_every_class(
    lines: list[tuple[int, slice]], empty: bool
) -> None:
    marks = np.zeros(SHAPE, np.uint8)
    marks[4, 12, 8:18], marks[4, 12, 22:28], marks[4, 2, 2:8] = 1, 2, 9
    for row, columns in lines:
        marks[20, row, columns] = 9
    labels = np.zeros(SHAPE[1:], np.uint8)
    labels[10:19, 6:20], labels[10:19, 20:30] = 1, 2
    assert empty_slices(_markers(marks), lambda _: labels).tolist() == ([20] if empty else [])


def test_background_strokes_through_the_same_tissue_take_no_section_of_annotated_slices() -> None:
    shape = (24, 64, 64)
    z, y, x = np.indices(shape)
    column = np.hypot(y - 32, x - 32) < 16
    rng = np.random.default_rng(1)
    image = (50 + 60 * column + rng.normal(0, 20, shape)).astype(np.float32)
    volume = Volume.from_array(image)
    model = SegmentModel(volume, fit_for_segmentation(volume, FitParams(iterations=20)))
    truth = column & (z >= 6) & (z <= 18)
    strokes = np.zeros(shape, np.uint8)
    step = np.arange(45)
    for s in (8, 16):
        strokes[s, 28 + step[:9], 28 + step[:9]] = 1
        strokes[s, 5 + step // 4, 10 + step] = 9
    for s in (3, 21):
        for middle in (18, 28, 38):
            strokes[s, middle + step // 4, 10 + step] = 9
    found = _found(model, strokes)
    assert not found[[3, 21]].any()
    # They are nearer to the rim of the section than the strokes in its middle: .36 without.
    assert overlap(found, truth) > 0.85
    for s in (8, 16):
        assert np.count_nonzero(found[s]) > 0.9 * np.count_nonzero(truth[s])
