"""Quality with fewer Gaussians: what is removed, and what stays as it was asked for."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from napari_medgs.fit import FitParams, fit
from napari_medgs.volume import Volume

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


@pytest.mark.parametrize("kind", ["number", "labels", "between"])
def test_what_an_image_alone_does_not_tell_is_left_alone(volume, kind):
    params, labels = replace(QUALITY, gaussians=4000, quality=35.0), None
    if kind == "labels":
        params, labels = QUALITY, (volume.data[0] > 60).astype(np.uint8)
    if kind == "between":
        params = replace(QUALITY, holdout=2)
    stages = []
    result = fit(volume, params, labels, progress=lambda event: stages.append(event.stage))
    assert result.stopped_by == "quality"
    assert "prune" not in stages
    assert len(result.field) == max(counts(result))
