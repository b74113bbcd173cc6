"""The optimizer on the device: emulated on the CPU here, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams
from napari_medgs.fitting import api as run
from napari_medgs.fitting.optim import loop
from napari_medgs.fitting.optim.device_loop import DeviceFitLoop
from napari_medgs.fitting.optim.loop import FitLoop
from napari_medgs.fitting.optim.state import LoopState
from napari_medgs.rendering import registry
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.cuda.engine import CudaEngine
from napari_medgs.rendering.cuda.fit import CudaStepper
from napari_medgs.rendering.engine import EngineSpec

_path = Path(__file__).with_name("cuda_twin.py")
_spec = importlib.util.spec_from_file_location("cuda_twin", _path)
cuda_twin = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cuda_twin)
random_table, random_target = cuda_twin.random_table, cuda_twin.random_target
needs_compiler = cuda_twin.needs_compiler


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture
def twin(builds):
    return partial(cuda_twin.twin_engine, builds)


def adam_settings(columns):
    steps = np.full(columns, 0.02, np.float32)
    lower, upper = np.full(columns, -50, np.float32), np.full(columns, 50, np.float32)
    upper[0] = 8.0
    return steps, lower, upper


@needs_compiler
def test_stepper_takes_the_cpu_optimizers_steps(twin, rng):
    from napari_medgs.fitting.advanced import OptimizerParams
    from napari_medgs.fitting.optim.adam import Adam

    settings = OptimizerParams()

    shape = (5, 9, 12)
    parameters = random_table(rng, shape, 20, 1)
    target = random_target(rng, shape, 1, 0)
    columns = adam_settings(parameters.shape[1])
    engine = twin(shape, 1)
    stepper = CudaStepper(
        engine,
        parameters,
        target,
        *columns,
        betas=(settings.beta1, settings.beta2),
        gradient_floor=settings.gradient_floor,
    )
    reports = [stepper.step(1 - k / 6) for k in range(6)]
    assert reports[:2] == [None, None]
    reports = reports[2:] + stepper.finish()
    assert [report.number for report in reports] == [1, 2, 3, 4, 5, 6]
    assert all(report.valid and report.moved for report in reports)
    table, adam = parameters.copy(), Adam(*parameters.shape, settings)
    for k, report in enumerate(reports):
        squares, _, gradient, _ = engine.loss_and_gradient(table, target)
        assert report.image_error == pytest.approx(squares, rel=1e-5)
        adam.step(table, gradient.astype(np.float32), columns[0] * (1 - k / 6), *columns[1:])
    np.testing.assert_allclose(stepper.table(), table, atol=2e-4)
    assert table[:, 0].max() <= 8
    assert reports[-1].image_error < reports[0].image_error


@needs_compiler
def test_stepper_rests_at_the_goal_and_after_overflow(twin, rng):
    shape = (5, 9, 12)
    parameters = random_table(rng, shape, 20, 1)
    target = random_target(rng, shape, 1, 0)
    engine = twin(shape, 1)
    squares, _, _, between = engine.loss_and_gradient(parameters, target)
    columns = adam_settings(parameters.shape[1])
    options = {"betas": (0.7, 0.8), "gradient_floor": 0.003}
    resting = CudaStepper(engine, parameters, target, *columns, **options)
    assert between > 0
    resting.stop = (squares * 1.01, 0.0, between * 1.01)
    resting.step()
    (report,) = resting.finish()
    assert report.valid
    assert not report.moved
    np.testing.assert_array_equal(resting.table(), parameters)
    resting.stop = (squares * 1.01, 0.0, between * 0.99)  # the frames are not good enough
    resting.step()
    (report,) = resting.finish()
    assert report.moved
    assert np.abs(resting.table() - parameters).max() > 0

    stepper = CudaStepper(engine, parameters, target, *columns, **options)
    stepper._fits = True
    engine._members = engine._members[:2]
    stepper.step()
    (report,) = stepper.finish()
    assert not report.valid
    np.testing.assert_array_equal(stepper.table(), parameters)
    stepper.step()
    assert stepper.finish()[0].image_error == pytest.approx(squares, rel=1e-9)


@needs_compiler
def test_stepper_keeps_what_it_knows_when_rearranged(twin, rng):
    shape = (4, 8, 8)
    parameters = random_table(rng, shape, 6, 1)
    target = random_target(rng, shape, 1, 0)
    columns = adam_settings(15)
    stepper = CudaStepper(
        twin(shape, 1), parameters, target, *columns, betas=(0.7, 0.8), gradient_floor=0.003
    )
    stepper.step()
    stepper.finish()
    before, before_table = stepper.first.clone(), stepper.table()
    fresh = random_table(rng, shape, 2, 1)
    order = np.array([6, 4, 0, 7])  # rows 1, 2, 3 and 5 are dropped
    stepper.rearrange(order, 2)
    stepper.restart(np.concatenate([before_table, fresh])[order])
    assert stepper.parameters.shape == (4, 15)
    np.testing.assert_array_equal(stepper.first[1], before[4])
    np.testing.assert_array_equal(stepper.first[2], before[0])
    assert not stepper.first[[0, 3]].any()
    stepper.step()
    assert stepper.finish()[0].valid


def blobs(rng):
    z, y, x = np.meshgrid(*[np.arange(n) for n in (6, 20, 22)], indexing="ij")
    labels = ((z - 3) ** 2 / 4 + (y - 9) ** 2 / 30 + (x - 10) ** 2 / 40 < 1).astype(np.int16)
    image = np.where(labels, 200.0, 50.0) + rng.normal(0, 5, labels.shape)
    return Volume.from_array(image.astype(np.float32)), labels


def both_loops(twin, monkeypatch, params, volume, mask):
    """Fit by the CPU's loop and by the device's, emulated."""
    results = []
    for kind, make in ((FitLoop, CpuEngine), (DeviceFitLoop, emulated(twin))):
        monkeypatch.setattr(run, "FitLoop", kind)
        monkeypatch.setattr(registry, "choose_engine", lambda name, blend, make=make: ("x", make))
        results.append(run.fit(volume, params, mask))
    return results


def emulated(twin):
    return lambda spec: twin(
        spec.shape,
        spec.channels,
        spec.background,
        degree=spec.degree,
        blend=spec.blend,
        double=False,
    )


@needs_compiler
@pytest.mark.parametrize("holdout", [None, 2])
def test_device_loop_meets_a_quality_with_fewer_gaussians(twin, rng, monkeypatch, holdout):
    z, y, x = np.mgrid[0 : 5 if holdout else 3, 0:16, 0:18].astype(np.float32)
    image = 50 + 20 * np.sin(x / 3 + z / 4) * np.cos(y / 4) + rng.normal(0, 0.5, x.shape)
    volume = Volume.from_array(image.astype(np.float32))
    params = FitParams(quality=34.0, iterations=20, fold=2, threads=1, holdout=holdout)
    results = both_loops(twin, monkeypatch, params, volume, None)
    # Both end at the first field that is good enough: steps beyond it are better spent on pruning.
    psnr = [result.metrics["psnr"] for result in results]
    assert psnr[1] == pytest.approx(psnr[0], abs=0.5)
    for result in results:
        assert result.stopped_by == "quality"
        assert result.metrics.get("through_plane_targets") == ("motion" if holdout else None)
        assert result.metrics["psnr"] >= params.quality
        most = max(entry["gaussians"] for entry in result.history)
        assert len(result.field) <= 0.85 * most


@needs_compiler
def test_device_loop_fits_as_the_cpu_does(twin, rng, monkeypatch):
    volume, mask = blobs(rng)
    params = FitParams(gaussians=60, iterations=10, fold=2, positions_every=4, threads=1)
    cpu, device = both_loops(twin, monkeypatch, params, volume, mask)
    assert device.metrics["psnr"] == pytest.approx(cpu.metrics["psnr"], abs=0.5)
    assert device.metrics["dice_mean"] == pytest.approx(cpu.metrics["dice_mean"], abs=0.05)
    assert [h["iteration"] for h in device.history] == [h["iteration"] for h in cpu.history]
    assert len(device.field) == len(cpu.field)
    assert [k for k, _ in device.positions] == [4, 8]
    first = [fit.history[0]["psnr"] for fit in (cpu, device)]
    assert first[0] == pytest.approx(first[1], abs=1e-3)


@needs_compiler
def test_device_loop_keeps_the_field_that_met_the_goal(twin, rng, monkeypatch):
    volume, _ = blobs(rng)
    params = FitParams(gaussians=60, iterations=40, quality=22.0, threads=1)
    cpu, device = both_loops(twin, monkeypatch, params, volume, None)
    assert cpu.stopped_by == device.stopped_by == "quality"
    assert device.history[-1]["psnr"] >= 22
    # The steps queued behind the one that met the target_psnr found the same field.
    met = next(h["iteration"] for h in device.history if h["psnr"] >= 22)
    assert device.history[-1]["iteration"] - met <= 4
    assert device.history[-1]["psnr"] == pytest.approx(device.history[met - 1]["psnr"], abs=1e-9)


@needs_compiler
@pytest.mark.parametrize("classes", [0, 3])
def test_device_loop_finds_errors_and_shares_as_the_cpu_does(twin, rng, classes):
    shape = (7, 10, 13)
    parameters = random_table(rng, shape, 25, 1 + classes)
    target = random_target(rng, shape, 1, classes)
    background = rng.random(1 + classes).astype(np.float32)
    there = CudaStepper(twin(shape, 1 + classes, background), parameters, target, *adam_settings(
        parameters.shape[1]), betas=(0.7, 0.8), gradient_floor=0.003)  # fmt: skip
    settings = {"degree": 3, "cutoff": 9.0, "eps": 1e-3, "threads": 1}
    found = []
    for kind in (FitLoop, DeviceFitLoop):
        one = kind.__new__(kind)  # only what the two methods look at
        one.state, one.target, one.shape = LoopState(parameters), target, shape
        one.params = FitParams(threads=1)
        one.engine = CpuEngine(EngineSpec(shape, 1 + classes, background, **settings))
        one.stepper, one.cuda = there, there.engine
        found.append((one.error_density(), *one.weighted_moments()))
    for cpu, device in zip(*found, strict=True):
        np.testing.assert_allclose(device, cpu, rtol=2e-3, atol=2e-3 * np.abs(cpu).max())
        assert np.abs(cpu).max() > 0.1


@needs_compiler
def test_device_loop_knows_how_long_steps_take(twin, rng, monkeypatch):
    volume, _ = blobs(rng)
    params = FitParams(gaussians=30, iterations=6, threads=1)
    now, events = [100.0], []
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    take, start = CudaStepper.step, run.place_start

    def slow_start(*arguments):
        now[0] += 1000
        return start(*arguments)

    def even_step(self, decay):
        now[0] += 40 if self.number == 0 else 2
        return take(self, decay)

    monkeypatch.setattr(run, "place_start", slow_start)
    monkeypatch.setattr(CudaStepper, "step", even_step)
    monkeypatch.setattr(run, "FitLoop", DeviceFitLoop)
    monkeypatch.setattr(registry, "choose_engine", lambda name, blend: ("x", emulated(twin)))
    run.fit(volume, params, progress=events.append)
    steps = [event for event in events if event.stage == "fit"]
    assert [event.remaining for event in steps] == [200, 8, 6, 4, 2, 0]
    assert steps[0].psnr is None
    assert steps[-1].psnr > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_stepper_lowers_the_loss(rng):
    shape = (24, 48, 56)
    parameters = random_table(rng, shape, 800, 1)
    target = random_target(rng, shape, 1, 0)
    engine = CudaEngine(EngineSpec(shape, 1, np.zeros(1), degree=3, cutoff=9.0, eps=1e-3))
    columns = adam_settings(15)
    stepper = CudaStepper(
        engine, parameters, target, *columns, betas=(0.7, 0.8), gradient_floor=0.003
    )
    reports = [stepper.step() for _ in range(30)][2:] + stepper.finish()
    assert all(report.valid for report in reports)
    assert reports[-1].image_error < 0.9 * reports[0].image_error
    expected, _, _, _ = engine.loss_and_gradient(parameters, target)
    assert reports[0].image_error == pytest.approx(expected, rel=1e-6)
