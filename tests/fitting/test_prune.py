"""Quality with fewer Gaussians: what is removed, and what stays as it was asked for."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams, fit
from napari_medgs.fitting import api as run
from napari_medgs.fitting.optim.loop import FitLoop
from napari_medgs.fitting.optim.moments import weighted_moments
from napari_medgs.fitting.strategy.sensitivity import removal_sensitivity
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec, StackTarget
from napari_medgs.rendering.parameters import GEOMETRY

QUALITY = FitParams(quality=42.0, iterations=40, backend="cpu")


@pytest.fixture(scope="module")
def volume():
    """Fine, noisy waves, (20, 40, 44)."""
    z, y, x = np.mgrid[0:20, 0:40, 0:44].astype(np.float32)
    image = 50 + 20 * np.sin(x / 3 + z / 6) * np.cos(y / 4) + 20 * (x + y > 40)
    image += np.random.default_rng(0).normal(0, 0.5, image.shape)
    return Volume.from_array(image.astype(np.float32))


@pytest.fixture(scope="module")
def pruned(volume):
    """A fit to a quality, and the reports of its progress."""
    events = []
    return fit(volume, QUALITY, progress=events.append), events


def counts(result):
    """Return the Gaussians of every step."""
    return [entry["gaussians"] for entry in result.history]


def test_quality_is_met_with_fewer_gaussians_than_it_took(pruned):
    result, _ = pruned
    assert result.stopped_by == "quality"
    assert result.metrics["psnr"] >= QUALITY.quality
    assert len(result.field) <= 0.85 * max(counts(result))


def test_removing_takes_a_small_share_of_the_steps_and_says_so(pruned):
    result, events = pruned
    prunes = [event for event in events if event.stage == "prune"]
    assert prunes
    assert [event.done for event in prunes] == list(range(1, len(prunes) + 1))
    assert all(event.done <= event.total for event in prunes)
    assert all(event.remaining >= 0 for event in prunes)
    fits = len(result.history) - len(prunes)
    assert len(prunes) < 0.5 * fits


def test_what_is_removed_is_the_same_every_time(volume, pruned):
    again = fit(volume, QUALITY).field
    np.testing.assert_array_equal(again.centers, pruned[0].field.centers)


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_cancel_while_removing_keeps_the_quality(volume, after):
    stages = []
    result = fit(
        volume,
        QUALITY,
        progress=lambda event: stages.append(event.stage),
        should_stop=lambda: stages.count("prune") >= after,
    )
    assert stages.count("prune") == after
    assert result.stopped_by == "cancelled"
    assert result.metrics["psnr"] >= QUALITY.quality


def test_the_time_limit_holds_while_removing(volume, monkeypatch):
    """The clock jumps past the limit at the first step after removing began."""
    clock, passed, stages = time.perf_counter, [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed[0])

    def jump(event):
        stages.append(event.stage)
        if event.stage == "prune":
            passed[0] = 1000.0

    result = fit(volume, replace(QUALITY, time_limit=500.0), progress=jump)
    assert stages.count("prune") == 1
    assert result.stopped_by == "quality"
    assert result.metrics["psnr"] >= QUALITY.quality


def test_a_number_that_was_asked_for_stays(volume):
    params = replace(QUALITY, gaussians=4000, quality=35.0)
    stages = []
    result = fit(volume, params, progress=lambda event: stages.append(event.stage))
    assert result.stopped_by == "quality"
    assert "prune" not in stages
    assert len(result.field) == max(counts(result))


def test_labels_are_matched_no_worse_with_fewer_gaussians(volume):
    labels = (volume.data[0] > 60).astype(np.uint8)
    events = []
    result = fit(volume, QUALITY, labels, progress=events.append)
    assert result.metrics["psnr"] >= QUALITY.quality
    assert len(result.field) <= 0.9 * max(counts(result))
    prunes = sum(event.stage == "prune" for event in events)
    met = result.history[-prunes - 1]
    assert met["psnr"] >= QUALITY.quality
    few = [
        entry["label_error"] for entry in result.history if entry["gaussians"] == len(result.field)
    ]
    assert min(few) <= met["label_error"]
    assert result.metrics["dice_mean"] > 0.97


def test_frames_between_slices_are_matched_no_worse_with_fewer_gaussians(volume):
    params = replace(QUALITY, holdout=2, quality=38.0)
    errors = []

    class Watched(FitLoop):
        def snapshot(self):  # of the field that met the target, then of every smaller one
            found = self.engine.loss_and_gradient(self.state.parameters, self.target)
            errors.append(found.through_plane_error)
            return super().snapshot()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "FitLoop", Watched)
        result = fit(volume, params)
    assert result.metrics["through_plane_targets"] != "none"
    assert result.metrics["psnr"] >= params.quality
    assert len(result.field) < max(counts(result))
    assert errors[0] >= errors[-1] > 0


def test_contributions_are_what_shares_and_curvature_say():
    """Against shares from a rendering with one channel a Gaussian."""
    rng = np.random.default_rng(3)
    shape, count = (4, 11, 13), 9
    parameters = np.zeros((count, GEOMETRY + 4), np.float32)
    parameters[:, :3] = rng.uniform(0, [13, 11, 4], (count, 3))
    parameters[:, 3:7] = rng.normal(-0.7, 0.3, (count, 4))
    parameters[:, GEOMETRY:] = rng.normal(0, 1, (count, 4))
    labels = rng.integers(0, 3, shape).astype(np.uint8)
    labels[:, 2:4] = 255
    image_weights = np.array([[1.0, 0.25, 0.0, 1.0]], np.float32)
    seg_weights = np.array([0.5, 0.0, 0.2, 0.5], np.float32)
    target = StackTarget(np.zeros((1, *shape), np.float32), image_weights, labels, seg_weights, 3)
    settings = {"degree": 1, "cutoff": 9.0, "eps": 1e-3}
    engine = CpuEngine(EngineSpec(shape, 4, np.zeros(4, np.float32), **settings))
    one_each = np.concatenate([parameters[:, :GEOMETRY], np.eye(count, dtype=np.float32)], axis=1)
    shares = CpuEngine(EngineSpec(shape, count, np.zeros(count, np.float32), **settings)).render(
        one_each
    )
    picture = engine.render(parameters)
    probability = np.exp(picture[1:]) / np.exp(picture[1:]).sum(axis=0)
    curvature = np.concatenate([np.ones((1, *shape)), probability * (1 - probability)])
    curvature[1:, labels == 255] = 0
    curvature *= np.concatenate([image_weights, [seg_weights] * 3])[:, :, None, None]
    gaps = (parameters[:, GEOMETRY:, None, None, None] - picture[None]) ** 2
    expected = np.einsum("nzyx,nczyx,czyx->n", shares, gaps, curvature)
    state, params = SimpleNamespace(parameters=parameters), SimpleNamespace(threads=2)
    loop = SimpleNamespace(state=state, target=target, engine=engine, params=params)
    loop.weighted_moments = lambda: weighted_moments(
        loop.engine, loop.state.parameters, loop.target
    )
    sensitivity, mass = removal_sensitivity(loop)
    np.testing.assert_allclose(sensitivity, expected, rtol=2e-3, atol=1e-4)
    expected = np.einsum("nzyx,czyx->nc", shares, curvature)
    np.testing.assert_allclose(mass, expected, rtol=2e-3, atol=1e-4)
