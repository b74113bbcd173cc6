"""The estimate of a segmentation's memory against what a process really takes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import psutil
import pytest
from scipy import ndimage

from napari_medgs.data.volume import Volume
from napari_medgs.errors import MemoryEstimateError
from napari_medgs.segmentation import InteractiveSegmenter, Prompts, SegmentParams, segment
from napari_medgs.segmentation.memory import estimate_bytes

MEASURE = """
import json, sys, threading, time
import numpy as np, psutil
from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation

def scene(shape, contrasts, classes):
    rng = np.random.default_rng(0)
    image = rng.normal(0, 5, (contrasts, *shape)).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    for k in range(1, classes):
        labels[:, 5 * k : 5 * k + 4, 10:-10] = k
    image += 50 * labels
    strokes = np.full(shape, 99, np.int32)
    for z in (2, shape[0] // 2, shape[0] - 3):
        strokes[z, ::4, ::4] = labels[z, ::4, ::4]
    return Volume.from_array(image), Prompts(labels=strokes, unlabeled=99)

def solve(volume, prompts, gaussians):
    fit = FitParams(gaussians=gaussians, iterations=1, backend="cpu", threads=1)
    field = fit_for_segmentation(volume, fit)
    del fit
    process, top, done = psutil.Process(), [0], []
    base = process.memory_info().rss
    def watch():
        while not done:
            top[0] = max(top[0], process.memory_info().rss)
            time.sleep(0.002)
    thread = threading.Thread(target=watch)
    thread.start()
    model = SegmentModel(volume, field)
    model.update(prompts)
    done.append(True)
    thread.join()
    return top[0] - base, len(field)

solve(*scene((6, 24, 24), 1, 3), 100)  # compiles and imports
cases = json.loads(sys.argv[1])
found = []
for shape, contrasts, classes in cases:
    found.append(solve(*scene(shape, contrasts, classes), 1500))
print(json.dumps(found))
"""
CASES = [((24, 96, 96), 1, 3), ((32, 112, 112), 2, 8)]  # from small to large: memory is reused


def test_the_estimate_is_above_the_peak_and_not_far():
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(CASES)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    for (shape, contrasts, classes), (peak, gaussians) in zip(CASES, json.loads(ran.stdout)):
        estimate = estimate_bytes(shape, contrasts, classes, gaussians)
        assert peak < estimate < 4 * peak + 16 * 2**20, (shape, peak / 2**20, estimate / 2**20)


def small():
    image = np.zeros((6, 30, 30), np.float32)
    image[:, 8:22, 8:22] = 100
    strokes = np.zeros(image.shape, np.int32)
    strokes[3, 15, 10:20], strokes[3, 2, 2:28] = 1, 2
    return Volume.from_array(image, (3.0, 1.0, 1.0)), Prompts(labels=strokes, background=2)


class Free:
    def __init__(self, available):
        self.available = available


def test_what_does_not_fit_is_refused_before_work_starts(monkeypatch):
    volume, prompts = small()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(20 * 2**20))
    told = []
    with pytest.raises(
        MemoryEstimateError, match=r"needs about .* GiB .* free\. Resampled to"
    ) as e:
        segment(volume, prompts, progress=told.append)
    assert "cropped to 1/" in str(e.value)
    segmenter = InteractiveSegmenter()
    segmenter.set_image(volume)
    with pytest.raises(MemoryEstimateError, match="Resampled"):
        segmenter.prepare(progress=told.append)
    assert not told
    big = Volume.from_array(np.random.default_rng(0).random((40, 64, 64), np.float32))
    from napari_medgs.segmentation.memory import check_memory

    free = int(estimate_bytes(big.shape, 1, 30, 500, 1000) / 0.9) + 2**20
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(free))
    with pytest.raises(MemoryEstimateError, match="refine_voxels"):
        check_memory(big, classes=30, gaussians=500)
    check_memory(big, SegmentParams(refine_voxels=1000), classes=30, gaussians=500)


def test_a_copy_without_constants_counts(monkeypatch):
    from napari_medgs.segmentation.memory import check_memory

    image = np.random.default_rng(0).normal(100, 10, (40, 64, 64)).astype(np.float32)
    image = ndimage.gaussian_filter(image, 2).astype(np.float32)
    params = SegmentParams(refine_voxels=0)
    free = int(estimate_bytes(image.shape, 1, 2, 500, 0) / 0.9) + 1000
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(free))
    check_memory(Volume.from_array(image), params, gaussians=500)
    image[:, :20, :20] = -3024
    volume = Volume.from_array(image)
    with pytest.raises(MemoryEstimateError):
        check_memory(volume, params, gaussians=500)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(free + 2 * volume.data.nbytes))
    check_memory(volume, params, gaussians=500)


def test_the_blocks_of_a_large_image_count_as_they_are():
    large = (40, 64, 64), 1, 3, 1000, 10_000, 100_000
    most = estimate_bytes(*large)
    # Blocks of 1 x 2 x 2 voxels are 41 thousand, of 2 x 2 x 2 half as many; there is room for 100.
    flat = estimate_bytes(*large, spacing=(2.0, 1.0, 1.0))
    cubes = estimate_bytes(*large, spacing=(1.0, 1.0, 1.0))
    assert cubes < flat < most
    small = (10, 50, 50), 1, 3, 1000, 10_000, 100_000
    assert estimate_bytes(*small) == estimate_bytes(*small, spacing=(2.0, 1.0, 1.0))


def test_more_of_everything_needs_more():
    start = ((10, 50, 50), 1, 2, 1000, 10_000)
    least = estimate_bytes(*start)
    for k, more in enumerate([(20, 50, 50), 2, 3, 2000, 20_000]):
        changed = list(start)
        changed[k] = more
        assert estimate_bytes(*changed) > least
