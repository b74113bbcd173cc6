"""The kernels of a processor without AVX-512 give what those of this one give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """
import sys
import numpy as np
from napari_medgs.rendering.cpu import simd
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec, StackTarget
rng = np.random.default_rng(0)
parameters = np.zeros((40, 15), np.float32)
parameters[:, :3] = rng.uniform(0, (30, 20, 6), (40, 3))
parameters[:, 3:7] = rng.uniform(-1.6, 0, (40, 4))
parameters[:, 7:] = rng.normal(0, 0.1, (40, 8))
shape = (6, 20, 30)
engine = CpuEngine(EngineSpec(shape, 1, threads=1))
images = rng.random((1, *shape), dtype=np.float32)
target = StackTarget(
    images, np.ones((1, 6), np.float32), np.zeros((0, 0, 0), np.uint8), np.zeros(6, np.float32)
)
gradient = engine.loss_and_gradient(parameters, target)[2].copy()
np.savez(sys.argv[1], picture=engine.render(parameters), gradient=gradient, lanes=simd.LANES)
"""


def _run(file: Path, cpu: str) -> dict[str, np.ndarray]:
    environment = dict(os.environ)
    if cpu:
        environment |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CACHE_DIR": str(file.parent)}
    subprocess.run([sys.executable, "-c", PROGRAM, str(file)], check=True, env=environment)
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.mark.slow
def test_a_plain_processor_gives_the_same(tmp_path: Path) -> None:
    here, plain = _run(tmp_path / "here.npz", ""), _run(tmp_path / "plain.npz", "generic")
    assert plain["lanes"] == 8
    np.testing.assert_allclose(plain["picture"], here["picture"], atol=2e-6)
    scale = np.abs(here["gradient"]).max(axis=0)
    assert np.all(np.abs(plain["gradient"] - here["gradient"]).max(axis=0) <= 1e-4 * scale + 1e-6)
