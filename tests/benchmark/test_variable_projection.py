"""Solving for values: it finds what least squares over shares finds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.fitting import api as run
from napari_medgs.rendering.parameters import GEOMETRY

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "variable_projection.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("variable_projection", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_values_solved_for_are_those_of_least_squares(script, rng):
    volume = Volume.from_array(rng.random((6, 14, 15), dtype=np.float32))
    loops = []

    class Kept(script.ProjectedLoop):
        variant = script.Variant("all", polish=200)

        def run(self):
            loops.append(self)
            return super().run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "FitLoop", Kept)
        params = FitParams(gaussians=12, iterations=2, backend="cpu", percentiles=(0, 100))
        run.fit(volume, params)
    loop = loops[0]
    theta, image = loop.state.parameters, loop.target.images[0]
    columns = []
    for k in range(len(theta)):
        table = theta.copy()
        table[:, GEOMETRY] = np.arange(len(theta)) == k
        columns.append(loop.linear.render(table)[0].ravel())
    nothing = theta.copy()
    nothing[:, GEOMETRY] = 0
    aim = image - loop.engine.render(nothing)[0]
    best = np.linalg.lstsq(np.stack(columns, axis=1), aim.ravel(), rcond=None)[0]
    np.testing.assert_allclose(theta[:, GEOMETRY], best, atol=2e-3)


def test_equal_work_means_fewer_steps(script):
    steps = [script.steps_of_equal_work(variant) for variant in script.VARIANTS]
    assert steps[0] == script.STEPS
    assert all(0 < n < script.STEPS for n in steps[1:])
    assert script.steps_of_equal_work(script.Variant("v", every=2, sweeps=1), 80) == 40


def test_a_variant_ends_with_the_fit(script):
    before = run.FitLoop
    with script.fitting_as(script.VARIANTS[1]):
        assert issubclass(run.FitLoop, script.ProjectedLoop)
    assert run.FitLoop is before
