"""Classes of many components: those without a stroke are found where the look tells them apart."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.errors import ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.solver.leaked_components import trim_leaked_components
from napari_medgs.segmentation.term_params import ScatterParams
from napari_medgs.segmentation.terms.scattered import Scattered
from tests.segmentation.conftest import overlap

SHAPE, STROKED, BACKGROUND = (22, 48, 48), 5, 2
SPOTS = [(5, 12, 12), (5, 12, 34), (5, 34, 14), (6, 34, 36), (5, 24, 24)]
FAR = [(15, 12, 14), (16, 14, 36), (15, 36, 24)]
WITHOUT = SegmentParams(advanced=SolverParams(scatter=ScatterParams(min_components=0)))


def spots(centers, radius=3.2):
    z, y, x = np.indices(SHAPE)
    found = np.zeros(SHAPE, bool)
    for center in centers:
        found |= sum((a - c) ** 2 for a, c in zip((z, y, x), center, strict=True)) < radius**2
    return found


def strokes():
    """Short strokes on all spots of one slice, and lines around them."""
    marks = np.zeros(SHAPE, np.uint8)
    marks[STROKED, 18, 3:45] = marks[STROKED, 29, 3:45] = BACKGROUND
    marks[STROKED, 4:44, 18] = marks[STROKED, 4:44, 29] = BACKGROUND
    for _, y, x in SPOTS:
        marks[STROKED, y - 1 : y + 2, x - 1 : x + 2] = 1
    return marks


def model_of(image):
    volume = Volume.from_array(image)
    return SegmentModel(
        volume, fit_for_segmentation(volume, FitParams(gaussians=2500, iterations=20))
    )


def noisy(image):
    return (image + np.random.default_rng(3).normal(0, 4, SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def lesions():
    return model_of(noisy(np.where(spots(SPOTS + FAR), 110.0, 60.0)))


@pytest.fixture(scope="module")
def lookalikes():
    """Most of what looks like the class is something else, in the stroked slice, too."""
    others = [(5, 6, 24), (5, 24, 8), (5, 24, 40), (5, 42, 24), (5, 41, 41), (5, 6, 41)]
    return model_of(noisy(np.where(spots(SPOTS + FAR + others), 110.0, 60.0)))


def test_components_without_a_stroke_are_found_by_their_look(lesions):
    prompts = Prompts(labels=strokes(), background=BACKGROUND)
    lesions.params = WITHOUT
    assert not (lesions.update(prompts).labels == 1)[12:].any()
    lesions.params = SegmentParams()
    found = lesions.update(prompts).labels == 1
    assert overlap(found[12:], spots(FAR)[12:]) > 0.7
    assert overlap(found, spots(SPOTS + FAR)) > 0.75


def test_lesions_do_not_flood_what_is_nearly_as_bright_in_other_slices():
    image = np.where(spots(SPOTS + FAR), 110.0, 60.0)
    z = np.indices(SHAPE)[0]
    image[(z > 9) & (image < 100)] = 90  # as nothing is in the stroked slice
    prompts = Prompts(labels=strokes(), background=BACKGROUND)
    found = model_of(noisy(image)).update(prompts).labels == 1
    truth = spots(SPOTS + FAR)
    assert overlap(found, truth) > 0.8
    assert overlap(found[10:], truth[10:]) > 0.85


def test_lesions_are_found_though_the_first_solve_leaks_in_the_stroked_slice():
    truth = spots(SPOTS + FAR)
    image = np.where(truth, 110.0, 60.0)
    part = np.s_[:9, 41:]
    image[part][~truth[part]] = 100  # nearly as bright, without a stroke
    prompts = Prompts(labels=strokes(), background=BACKGROUND)
    found = model_of(noisy(image)).update(prompts).labels == 1
    assert overlap(found[10:], truth[10:]) > 0.7


@pytest.mark.parametrize("seed", range(4))
def test_small_lesions_are_not_cut_short(seed):
    # Almost every Gaussian of theirs in the stroked slice is a seed: their path costs are zero.
    truth = spots(SPOTS + FAR, 2.2)
    noise = np.random.default_rng(seed).normal(0, 4, SHAPE)
    model = model_of((np.where(truth, 110.0, 60.0) + noise).astype(np.float32))
    found = model.update(Prompts(labels=strokes(), background=BACKGROUND)).labels == 1
    assert overlap(found[12:], truth[12:]) > 0.95


def test_a_few_lesions_that_nobody_marked_do_not_hide_the_look_of_the_others():
    unmarked = [(5, 6, 24), (5, 24, 8), (5, 42, 24)]
    truth = spots(SPOTS + FAR + unmarked)
    model = model_of(noisy(np.where(truth, 110.0, 60.0)))
    found = model.update(Prompts(labels=strokes(), background=BACKGROUND)).labels == 1
    assert overlap(found[12:], truth[12:]) > 0.85


@pytest.mark.parametrize(("unlike", "kept"), [(6, 30), (15, 15)])
def test_long_components_lose_only_what_leaked(unlike, kept):
    labels = np.zeros((3, 5, 40), np.uint8)
    labels[1, 2, 5:35] = 1  # 30 voxels, where the largest annotated one has 4
    none = np.zeros((0, 3), np.int32), np.zeros(0, np.int32)
    look = Scattered(*none, frozenset({1}), {1: 1.0}, 4.0, {1: 4.0}, np.ones(3))
    margin = np.where(np.arange(40) < 5 + unlike, -1.0, 2.0)
    trim_leaked_components(
        labels, look, Markers((0, 1), *none, *none),
        lambda at: np.stack([0 * at[:, 2], margin[at[:, 2]]], 1),
        ScatterParams(),
    )  # fmt: skip
    assert (labels == 1).sum() == kept


def test_a_background_stroke_on_one_of_them_takes_it_away(lesions):
    marks = strokes()
    z, y, x = FAR[0]
    marks[z, y - 1 : y + 2, x - 1 : x + 2] = BACKGROUND
    found = lesions.update(Prompts(labels=marks, background=BACKGROUND)).labels == 1
    near = spots(FAR[:1], 6)
    assert not found[near].any()
    assert found[spots(FAR[1:], 2)].all()


def test_quick_updates_keep_what_was_found(lesions):
    marks = strokes()
    lesions.update(Prompts(labels=marks, background=BACKGROUND))
    marks[STROKED, 2, 2:40] = BACKGROUND
    result = lesions.update(Prompts(labels=marks, background=BACKGROUND), quick=True)
    assert result.incremental
    assert (result.labels == 1)[spots(FAR, 2)].all()


def test_nothing_is_found_where_the_stroked_slice_shows_the_same_look_elsewhere(lookalikes):
    found = lookalikes.update(Prompts(labels=strokes(), background=BACKGROUND)).labels == 1
    assert not found[12:].any()


def test_slices_that_show_what_the_mask_lacks_are_suggested(lookalikes):
    prompts = Prompts(labels=strokes(), background=BACKGROUND)
    chosen = {}
    for name, params in (("look", SegmentParams()), ("mask", WITHOUT)):
        lookalikes.params = params
        lookalikes.update(prompts)
        chosen[name] = lookalikes.suggest(1, axis=0)[0].index
    assert 12 <= chosen["look"] <= 19
    assert chosen["mask"] < 12


def test_two_components_are_not_many(lesions):
    marks = strokes()
    for _, y, x in SPOTS[2:]:
        marks[STROKED, y - 3 : y + 4, x - 3 : x + 4][
            marks[STROKED, y - 3 : y + 4, x - 3 : x + 4] == 1
        ] = 0
    found = lesions.update(Prompts(labels=marks, background=BACKGROUND)).labels == 1
    assert not found[12:].any()


@pytest.mark.parametrize(
    "wrong",
    [{"min_components": -1}, {"min_recall": 1.5}, {"min_precision_few": 2.0}, {"max_size": 0.0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ParameterError):
        ScatterParams(**wrong)
