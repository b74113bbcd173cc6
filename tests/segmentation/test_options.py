"""Settings hold: the number of threads, the seed, and what a snapshot of prompts promises."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_medgs._util import threads
from napari_medgs.data.volume import Volume
from napari_medgs.errors import ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams, SegmentStage, segment
from napari_medgs.segmentation.advanced import GraphParams, SolverParams
from napari_medgs.segmentation.term_params import FeatureParams, WatershedParams
from napari_medgs.segmentation.voxel_model import VoxelModel
from tests.segmentation.conftest import BACKGROUND


@pytest.fixture
def prompts(ball_strokes):
    return Prompts(labels=ball_strokes, background=BACKGROUND)


@pytest.fixture
def started(monkeypatch):
    """Record how many threads every parallel step asks for beside its caller."""
    asked = []
    pool = threads._pool

    def record(workers):
        asked.append(workers)
        return pool(workers)

    monkeypatch.setattr(threads, "_pool", record)
    monkeypatch.setattr(threads, "_cpus", lambda: 3)
    return asked


def use_all(model, prompts):
    """Ask a model everything it can be asked."""
    result = model.update(prompts)
    model.update(prompts, quick=True)
    model.preview_slice(1, 14, prompts)
    result.probability()
    result.uncertainty()
    model.suggest()


def test_one_thread_starts_no_other(ball_scene, prompts, started):
    volume, labels, field = ball_scene
    painted = np.full(labels.shape, -1, np.int32)
    painted[[4, 8, 12]] = labels[[4, 8, 12]]  # interpolated between
    for given in (prompts, Prompts(labels=painted, unlabeled=-1)):
        use_all(SegmentModel(volume, field, SegmentParams(threads=1)), given)
    assert started == []


def test_new_settings_of_a_model_count(ball_scene, prompts, started):
    volume, _, field = ball_scene
    model = SegmentModel(volume, field, SegmentParams(threads=1))
    model.params = SegmentParams(threads=2)
    use_all(model, prompts)
    assert set(started) == {1}
    model.params = SegmentParams()
    use_all(model, prompts)
    assert max(started) == 2


def test_the_fit_of_a_segmentation_heeds_the_threads(prompts, started):
    rng = np.random.default_rng(0)
    volume = Volume.from_array(rng.normal(size=prompts.labels.shape).astype(np.float32))
    segment(
        volume,
        prompts,
        SegmentParams(threads=1),
        fit_params=FitParams(gaussians=200, iterations=2),
    )
    assert started == []


def test_results_do_not_depend_on_the_number_of_threads(ball_scene, prompts):
    volume, _, field = ball_scene
    one, two = (
        SegmentModel(volume, field, SegmentParams(threads=n)).update(prompts) for n in (1, 2)
    )
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.probability(), two.probability())


def test_the_seed_counts_whenever_it_is_set(ball_scene, prompts):
    volume, _, field = ball_scene

    # Without the appearance term only the stochastic watershed is random.
    def votes(model, seed):
        model.params = SegmentParams(seed=seed)
        model.update(prompts)
        return model._setup.propagation.last.solution.votes.fractions[0]

    model = VoxelModel(volume, field)
    zero, seven = votes(model, 0), votes(model, 7)
    assert (zero != seven).any()
    np.testing.assert_array_equal(votes(model, 0), zero)
    np.testing.assert_array_equal(
        votes(VoxelModel(volume, field, SegmentParams(seed=7)), 7), seven
    )
    with pytest.raises(ParameterError, match="seed"):
        SegmentParams(seed=-1)


def test_a_snapshot_does_not_see_later_strokes(model, prompts):
    expected = model.update(prompts).labels.copy()
    before = model.snapshot(prompts)
    assert before.values == (0, 1, 2)
    locked = replace(prompts, locked=frozenset({1}), result=expected.copy())
    held = model.snapshot(locked)
    prompts.labels[:] = 0
    locked.result[:] = 0
    np.testing.assert_array_equal(model.update(before).labels, expected)
    np.testing.assert_array_equal(model.update(held).labels == 1, expected == 1)


def test_stages_are_reported_by_name(model, prompts):
    seen = []
    result = model.update(prompts, progress=lambda event: seen.append(event.stage))
    assert seen[0] is SegmentStage.PROMPTS
    assert seen[-1] is SegmentStage.POSTPROCESS
    assert set(seen) == set(result.timings)


def test_advanced_settings_of_a_model_count(ball_scene, prompts):
    volume, _, field = ball_scene
    advanced = SolverParams(
        graph=GraphParams(neighbors=6), watershed=WatershedParams(realizations=16)
    )
    model = SegmentModel(volume, field)
    usual = model.update(prompts)
    model.params = SegmentParams(advanced=advanced)
    changed = model.update(prompts, quick=True)
    assert not changed.incremental  # nothing of the earlier solve is left
    fresh = SegmentModel(volume, field, SegmentParams(advanced=advanced)).update(prompts)
    np.testing.assert_array_equal(changed.probability(), fresh.probability())
    assert (changed.probability() != usual.probability()).any()
    model.params = SegmentParams()
    np.testing.assert_array_equal(model.update(prompts).labels, usual.labels)


def test_settings_survive_the_way_through_json():
    advanced = SolverParams(graph=GraphParams(neighbors=6), extent_percentile=90.0)
    params = SegmentParams(islands="largest", advanced=advanced)
    record = json.loads(json.dumps(params.to_dict()))
    assert SegmentParams.from_dict(record) == params
    assert "advanced" not in SegmentParams().to_dict()
    with pytest.raises(ParameterError, match="magic"):
        SegmentParams.from_dict({"advanced": {"graph": {"magic": 1}}})
    assert SegmentParams.from_dict({"reach": 2.0}).max_path_ratio == 2.0


@pytest.mark.parametrize("width", [0.0, 1e-308])
def test_widths_of_smoothing_whose_squares_underflow_are_none(ball_scene, prompts, width):
    volume, _, field = ball_scene
    features = FeatureParams(guide_sigma=width)
    with np.errstate(all="raise", under="ignore"):
        params = SegmentParams(smooth=width, advanced=SolverParams(features=features))
        labels = SegmentModel(volume, field, params).update(prompts).labels
    plain = SegmentParams(smooth=0, advanced=SolverParams(features=FeatureParams(guide_sigma=0.1)))
    np.testing.assert_array_equal(
        labels, SegmentModel(volume, field, plain).update(prompts).labels
    )
    assert set(np.unique(labels)) == {0, 1, 2}


def test_coarse_features_must_not_get_finer():
    with pytest.raises(ParameterError, match="increase"):
        FeatureParams(coarse_sigmas=(4.0, 2.0))
    with pytest.raises(ParameterError, match="one length or more"):
        FeatureParams(coarse_sigmas=())
