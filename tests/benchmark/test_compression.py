"""The case "compression" of the benchmark suite: its measures, and codecs on a small volume."""

from __future__ import annotations

import math

import numpy as np
import pytest

from suite.compression_case import Point, bytes_at, equal_table, ratio_text, scores
from suite.compression_codecs import codecs
from suite.compression_use import surface_distance

POINTS = [Point("a", 1000, 30.0, 0.9), Point("b", 4000, 36.0, 0.95), Point("c", 16000, 42.0, 0.99)]


def test_bytes_at_a_quality_lie_between_the_settings():
    assert bytes_at(POINTS, 36.0) == pytest.approx(4000)
    assert bytes_at(POINTS, 33.0) == pytest.approx(2000)
    assert bytes_at(POINTS, 0.925, "ssim") == pytest.approx(2000)
    assert math.isnan(bytes_at(POINTS, 29.0))
    assert math.isnan(bytes_at(POINTS, 43.0))
    assert math.isnan(bytes_at(POINTS[:1], 30.0))


def test_lost_cases_say_so():
    assert ratio_text(2000, 1000) == "2.00"
    assert ratio_text(500, 1000) == "0.50 (lost)"
    assert ratio_text(math.nan, 1000) == "-"
    ours = [Point("36 dB, small", 3000, 33.0, 0.93, 5.0, 12.0, 0.3, 2.0, 1.0)]
    table = equal_table("title", ours, {"codec": POINTS}, "psnr")
    assert table.rows[0][-1] == "0.67 (lost)"
    assert table.columns[-1] == "codec"


def test_codecs_get_better_with_bytes():
    pytest.importorskip("imagecodecs")
    z, y, x = np.indices((12, 40, 48)) / 40
    volume = (0.5 + 0.4 * np.sin(6 * x + 3 * z) * np.cos(5 * y)).astype(np.float32)
    volume += np.random.default_rng(0).normal(0, 0.02, volume.shape).astype(np.float32)
    volume = np.clip(volume, 0, 1)
    found = codecs(volume, quick=True)
    assert {"JPEG 2000", "JPEG XL", "ZFP", "SZ3", "SPERR"} <= {codec.name for codec in found}
    for codec in found:
        coarse, fine = (codec.run(volume, s) for s in (codec.settings[0], codec.settings[-1]))
        assert coarse[0] < fine[0], codec.name
        assert scores(volume, coarse[1])[0] < scores(volume, fine[1])[0], codec.name
        assert scores(volume, fine[1])[0] > 30, codec.name


def test_distances_of_meshes_are_exact():
    from trimesh.creation import icosphere

    apart = surface_distance(icosphere(4, 10.0), icosphere(4, 10.5))
    assert apart.mean() == pytest.approx(0.5, abs=0.01)
    assert surface_distance(icosphere(2), icosphere(2)).max() < 1e-6
