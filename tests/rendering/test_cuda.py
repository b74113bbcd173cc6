"""The CUDA engine: its kernels emulated on the CPU here, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_medgs.errors import BackendError, ParameterError
from napari_medgs.rendering.autograd import differentiable_render
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.cuda import driver as cuda_driver
from napari_medgs.rendering.cuda import engine as cuda
from napari_medgs.rendering.cuda.engine import CudaEngine
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import A1, B1, LOG_R1, LOG_R2, LOG_RT, SHEAR
from napari_medgs.rendering.reference import BlendSettings, ReferenceEngine, grid_points, render_at

_spec = importlib.util.spec_from_file_location(
    "cuda_twin", Path(__file__).with_name("cuda_twin.py")
)
cuda_twin = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cuda_twin)
random_table, random_target = cuda_twin.random_table, cuda_twin.random_target

CUTOFF = 9.0
needs_compiler = cuda_twin.needs_compiler


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture
def twin(builds):
    return partial(cuda_twin.twin_engine, builds)


def reference(shape, channels, background, degree, blend):
    return ReferenceEngine(
        EngineSpec(
            shape, channels, background, degree=degree, cutoff=CUTOFF, eps=1e-3, blend=blend
        )
    )


def exact(shape, parameters, background, degree, blend):
    """The reference's values in float64."""
    info = BlendSettings(blend, degree, CUTOFF, 1e-3)
    points = grid_points(shape, dtype=torch.float64)
    values = render_at(
        torch.as_tensor(parameters, dtype=torch.float64),
        torch.as_tensor(background, dtype=torch.float64),
        info,
        points,
    )
    return values.T.reshape(-1, *shape).numpy()


CASES = [
    # shape, images, classes, degree, blend
    ((7, 11, 21), 1, 0, 3, "normalized"),
    ((6, 9, 17), 2, 3, 2, "normalized"),
    ((5, 13, 10), 1, 12, 1, "normalized"),  # more planes than registers: in chunks
    ((1, 20, 18), 3, 0, 0, "normalized"),
    ((2, 12, 17), 0, 2, 1, "normalized"),
    ((7, 11, 21), 1, 2, 3, "sum"),
    ((1, 20, 18), 2, 0, 0, "sum"),
]


@needs_compiler
@pytest.mark.parametrize(("shape", "images", "classes", "degree", "blend"), CASES)
def test_emulated_kernels_agree_with_reference(twin, rng, shape, images, classes, degree, blend):
    channels = images + classes
    parameters = random_table(rng, shape, 40, channels, degree)
    background = rng.random(channels).astype(np.float32)
    target = random_target(rng, shape, images, classes)
    engine = twin(shape, channels, background, degree=degree, blend=blend)
    rendered = engine.render(parameters)
    np.testing.assert_allclose(
        rendered, exact(shape, parameters, background, degree, blend), rtol=1e-9, atol=1e-11
    )
    squares, miss, gradient, _ = engine.loss_and_gradient(parameters, target)
    truth = reference(shape, channels, background, degree, blend)
    squares_true, miss_true, gradient_true, _ = truth.loss_and_gradient(parameters, target)
    # Error sums of a warp are added in the kernels' number type, of all warps in float64.
    assert squares == pytest.approx(squares_true, rel=1e-9)
    assert miss == pytest.approx(miss_true, rel=1e-9)
    scale = np.abs(gradient_true).max(axis=0) + 1e-12
    np.testing.assert_allclose(gradient / scale, gradient_true / scale, atol=2e-7)
    assert np.abs(gradient_true[:, A1 + degree : A1 + 3]).max(initial=0) == 0
    assert np.abs(gradient[:, A1 + degree : A1 + 3]).max(initial=0) == 0


@needs_compiler
def test_emulated_32_bit_kernels_agree_with_cpu_engine(twin, rng):
    shape, images, classes = (7, 15, 22), 1, 3
    parameters = random_table(rng, shape, 60, images + classes)
    background = rng.random(images + classes).astype(np.float32)
    target = random_target(rng, shape, images, classes)
    target.labels[target.seg_weights == 0] = 255  # the CPU engine does not look at them
    ours = twin(shape, 4, background, double=False)
    cpu = CpuEngine(EngineSpec(shape, 4, background, degree=3, cutoff=CUTOFF, eps=1e-3, threads=1))
    difference = np.abs(ours.render(parameters) - cpu.render(parameters))
    # A voxel just at the rim of a Gaussian's support may fall on either side of it.
    assert np.median(difference) < 1e-6
    assert np.quantile(difference, 0.999) < 1e-4
    got, expected = (engine.loss_and_gradient(parameters, target) for engine in (ours, cpu))
    assert got[0] == pytest.approx(expected[0], rel=1e-4)
    assert got[1] == pytest.approx(expected[1], rel=1e-4)
    assert expected.through_plane_error > 0
    assert got.through_plane_error == pytest.approx(expected.through_plane_error, rel=1e-4)
    for column in range(parameters.shape[1]):
        error = np.linalg.norm(got[2][:, column] - expected[2][:, column])
        assert error <= 1e-3 * np.linalg.norm(expected[2][:, column]), f"column {column}"


@needs_compiler
def test_absolute_errors_agree_with_reference(twin, rng):
    shape = (4, 10, 12)
    parameters = random_table(rng, shape, 20, 1)
    target = random_target(rng, shape, 1, 0, l1=True)
    _, _, ours, _ = twin(shape, 1).loss_and_gradient(parameters, target)
    truth = reference(shape, 1, np.zeros(1), 3, "normalized")
    _, _, expected, _ = truth.loss_and_gradient(parameters, target)
    assert np.linalg.norm(ours - expected) <= 1e-6 * np.linalg.norm(expected)


@needs_compiler
def test_slabs_and_slices_do_not_change_the_answer(twin, rng):
    shape, channels = (11, 9, 16), 2
    parameters = random_table(rng, shape, 30, channels)
    target = random_target(rng, shape, channels, 0)
    whole, sliced = twin(shape, channels), twin(shape, channels, memory=1)
    assert len(whole.plan().slabs) == 1
    assert len(sliced.plan().slabs) == 3
    np.testing.assert_array_equal(whole.render(parameters), sliced.render(parameters))
    wanted = np.array([0, 3, 4, 5, 9])
    np.testing.assert_array_equal(
        sliced.render(parameters, wanted), whole.render(parameters)[:, wanted]
    )
    a, b = (
        whole.loss_and_gradient(parameters, target),
        sliced.loss_and_gradient(parameters, target),
    )
    assert a[0] == pytest.approx(b[0], rel=1e-12)
    np.testing.assert_allclose(a[2], b[2], rtol=1e-9, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize(
    ("shape", "warps", "ahead"),
    [((9, 44, 45), 4, 2), ((9, 44, 45), 8, 1), ((3, 30, 52), 8, 3), ((1, 60, 90), 4, 2)],
)
def test_large_gaussians_are_shared_by_a_block(twin, rng, monkeypatch, shape, warps, ahead):
    settings = {"LARGE_TILES": 8, "LARGE_WARPS": warps, "GATHER_WARPS": 2, "AHEAD": ahead}
    for name, value in settings.items():
        monkeypatch.setattr(cuda_driver, name, value)
    parameters = random_table(rng, shape, 8, 1, degree=int(shape[0] > 1))
    parameters[:4, [LOG_R1, LOG_R2, LOG_RT]] = -4.0  # as wide as the stack
    parameters[1:3, [LOG_R1, LOG_R2]] = [-3.0, -0.5]  # flat, and steep
    parameters[1:3, SHEAR] = [-0.4, 0.7]
    target = random_target(rng, shape, 1, 0)
    engine = twin(shape, 1)
    _, _, ours, _ = engine.loss_and_gradient(parameters, target)
    assert 2 <= int(engine._memory["large"][0]) < 8
    truth = reference(shape, 1, np.zeros(1), 3, "normalized")
    _, _, expected, _ = truth.loss_and_gradient(parameters, target)
    scale = np.abs(expected).max(axis=0) + 1e-12
    np.testing.assert_allclose(ours / scale, expected / scale, atol=2e-7)
    np.testing.assert_array_equal(engine.loss_and_gradient(parameters, target)[2], ours)


def sections(parameters, shape, degree=3):
    """Which voxels each Gaussian reaches, (N, Z, Y, X), by its own formula."""
    z, y, x = (axis[None] for axis in np.meshgrid(*map(np.arange, shape), indexing="ij"))
    column = parameters.astype(np.float64).T[:, :, None, None, None]
    d = z - column[2]
    fold = [sum(column[first + k] * d ** (k + 1) for k in range(degree)) for first in (A1, B1)]
    r1, r2, rt = (np.exp(column[k]) for k in (LOG_R1, LOG_R2, LOG_RT))
    dy = y - column[1] - fold[1]
    u = x - column[0] - fold[0] - column[SHEAR] * r2 / r1 * dy
    return (r1 * u) ** 2 + (r2 * dy) ** 2 + (rt * d) ** 2 <= CUTOFF


@needs_compiler
@pytest.mark.parametrize("shape", [(9, 44, 45), (2, 40, 50), (1, 60, 90)])
def test_tiles_list_all_gaussians_that_reach_them_and_few_others(twin, rng, shape):
    parameters = random_table(rng, shape, 60, 1)
    parameters[:20, [LOG_R1, LOG_R2]] -= rng.uniform(0, 2, (20, 2))
    parameters[:20, SHEAR] = rng.normal(0, 1, 20)
    engine = twin(shape, 1)
    engine.render(parameters)
    columns, rows, through = engine.tile
    inside = sections(parameters, shape)
    sizes = (-(-shape[0] // through), -(-shape[1] // rows), -(-shape[2] // columns))
    padded = np.zeros((len(parameters), *np.multiply(sizes, (through, rows, columns))), bool)
    padded[:, : shape[0], : shape[1], : shape[2]] = inside
    cut = padded.reshape(-1, sizes[0], through, sizes[1], rows, sizes[2], columns)
    needed = cut.any(axis=(2, 4, 6)).reshape(len(parameters), -1)
    offsets = engine._memory["offsets"].numpy()
    listed = np.zeros_like(needed)
    for tile in range(needed.shape[1]):
        listed[engine._members[offsets[tile] : offsets[tile + 1]].numpy(), tile] = True
    assert not (needed & ~listed).any()
    assert needed.sum() <= listed.sum() <= 1.1 * needed.sum() + 20
    np.testing.assert_array_equal(engine._memory["touched"][: len(parameters)], listed.sum(axis=1))


@needs_compiler
def test_lists_that_overflow_grow_and_the_answer_stays(twin, rng, monkeypatch):
    shape = (6, 10, 20)
    parameters = random_table(rng, shape, 50, 1)
    expected = twin(shape, 1).render(parameters)
    monkeypatch.setattr(cuda, "LEAST_CAPACITY", 3)
    engine = twin(shape, 1)
    assert len(engine._members) == 3
    np.testing.assert_array_equal(engine.render(parameters), expected)
    assert len(engine._members) > 3
    assert (engine._memory["counts"] == 0).all()


@needs_compiler
def test_long_lists_are_sorted(twin, rng):
    """More Gaussians in a tile than fit into shared memory, and an awkward number of them."""
    shape = (1, 16, 16)
    parameters = random_table(rng, shape, 2500, 1, degree=0)
    parameters[:, :2] = rng.uniform(4, 12, (2500, 2))
    engine = twin(shape, 1, degree=0)
    engine.render(parameters)
    count = int(engine._memory["offsets"][1])
    assert count > 2048
    listed = engine._members[:count].numpy()
    assert (np.diff(listed) > 0).all()


@needs_compiler
def test_tables_that_are_not_finite_end_no_process(twin, rng):
    parameters = random_table(rng, (4, 9, 9), 12, 1)
    parameters[3, 2], parameters[4, 0], parameters[5, LOG_R1] = np.nan, np.inf, -np.inf
    target = random_target(rng, (4, 9, 9), 1, 0)
    engine = twin((4, 9, 9), 1, double=False)
    engine.loss_and_gradient(parameters, target)
    clean = random_table(rng, (4, 9, 9), 12, 1)
    assert np.isfinite(engine.loss_and_gradient(clean, target)[2]).all()


@needs_compiler
def test_no_gaussians_is_background(twin):
    engine = twin((3, 8, 8), 1, np.array([0.25], np.float32))
    np.testing.assert_allclose(engine.render(np.zeros((0, 15), np.float32)), 0.25, rtol=1e-6)


@needs_compiler
def test_misplaced_barrier_would_be_noticed(builds, monkeypatch):
    broken = cuda_twin.kernel_source() + (
        'extern "C" __global__ void broken(const Task t) { if (threadIdx.x > 3) __syncthreads(); }'
    )
    monkeypatch.setattr(cuda_twin, "kernel_source", lambda: broken)
    monkeypatch.setattr(cuda_twin, "KERNELS", (*cuda_twin.KERNELS, "broken"))
    options = cuda.KernelOptions(1, (8, 8, 4))
    kernels = cuda_twin.TwinKernels(options, builds, True)
    task = cuda.task_type(True)()
    with pytest.raises(AssertionError, match="wait for ever"):
        kernels.launch("broken", 1, 64, task)


@needs_compiler
def test_autograd_agrees_with_reference(twin, rng):
    shape = (5, 8, 9)
    parameters = torch.tensor(random_table(rng, shape, 12, 2), dtype=torch.float64)
    weights = torch.tensor(rng.random((2, *shape)))
    engine = twin(shape, 2, np.array([0.2, 0.4]))
    ours = parameters.clone().requires_grad_()
    (weights * differentiable_render(engine, ours).sin()).sum().backward()
    expected = parameters.clone().requires_grad_()
    info = BlendSettings("normalized", 3, CUTOFF, 1e-3)
    points = grid_points(shape, dtype=torch.float64)
    background = torch.tensor([0.2, 0.4], dtype=torch.float64)
    values = render_at(expected, background, info, points).T.reshape(2, *shape)
    (weights * values.sin()).sum().backward()
    np.testing.assert_allclose(ours.grad, expected.grad, rtol=1e-6, atol=1e-9)


@needs_compiler
def test_wrong_use_is_refused(twin, rng):
    with pytest.raises(ParameterError, match="alpha"):
        twin((2, 8, 8), 1, blend="alpha")
    engine = twin((2, 12, 17), 2)
    with pytest.raises(ParameterError, match="columns"):
        engine.render(np.zeros((3, 15), np.float32))
    with pytest.raises(ParameterError, match="increase"):
        engine.render(np.zeros((3, 16), np.float32), np.array([1, 0]))
    with pytest.raises(ParameterError, match="classes"):
        target = random_target(rng, (2, 12, 17), 1, 0)
        engine.loss_and_gradient(np.zeros((3, 16), np.float32), target)


def test_without_a_gpu_there_is_a_reason():
    works, reason = cuda.available()
    assert works == torch.cuda.is_available()
    assert reason
    if works:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match="cannot be used"):
        CudaEngine(EngineSpec((2, 8, 8), 1, np.zeros(1), degree=1, cutoff=9.0, eps=1e-3))


def test_broken_installation_is_a_reason_not_an_error(monkeypatch):
    def broken():
        raise RuntimeError("driver mismatch")

    monkeypatch.setattr(cuda_driver, "device_count", lambda: 1)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", broken)
    assert cuda.available() == (False, "RuntimeError: driver mismatch")


def test_torch_is_not_imported_to_find_no_driver():
    if cuda.available()[0]:
        pytest.skip("there is a GPU")
    script = (
        "import sys; from napari_medgs.rendering import backends; "
        "from napari_medgs.rendering.registry import choose_engine; "
        "print(choose_engine('auto', 'normalized')[0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["cpu", "False"], done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("shape", "images", "classes", "degree", "blend"), CASES)
def test_gpu_agrees_with_reference_and_cpu(rng, shape, images, classes, degree, blend):
    channels = images + classes
    parameters = random_table(rng, shape, 300, channels, degree)
    background = rng.random(channels).astype(np.float32)
    target = random_target(rng, shape, images, classes)
    if classes:
        target.labels[target.seg_weights == 0] = 255  # the CPU engine does not look at them
    options = {"degree": degree, "cutoff": CUTOFF, "eps": 1e-3, "blend": blend}
    ours = CudaEngine(EngineSpec(shape, channels, background, **options))
    cpu = CpuEngine(EngineSpec(shape, channels, background, **options))
    values = ours.render(parameters)
    for other in (cpu.render(parameters), exact(shape, parameters, background, degree, blend)):
        difference = np.abs(values - other) / (1 + np.abs(other))
        assert np.median(difference) < 1e-6
        assert np.quantile(difference, 0.999) < 2e-4
    got, expected = (engine.loss_and_gradient(parameters, target) for engine in (ours, cpu))
    assert got[0] == pytest.approx(expected[0], rel=1e-4)
    assert got[1] == pytest.approx(expected[1], rel=1e-4)
    for column in range(parameters.shape[1]):
        error = np.linalg.norm(got[2][:, column] - expected[2][:, column])
        assert error <= 2e-3 * np.linalg.norm(expected[2][:, column]), f"column {column}"
    again = ours.loss_and_gradient(parameters, target)
    np.testing.assert_array_equal(again[2], got[2])


@needs_compiler
def test_gpu_is_trusted_only_if_it_is_right(twin, monkeypatch):
    from napari_medgs.rendering.cuda import check as cuda_check

    def engine(spec):
        return twin(spec.shape, spec.channels, spec.background, degree=spec.degree, double=False)

    assert cuda_check.deviation(engine) < 1e-4
    assert cuda_check.deviation(CpuEngine) < 1e-4
    monkeypatch.setattr(cuda_check, "available", lambda: (True, "a GPU"))
    verdicts = []
    for make in (engine, lambda *a, **k: twin((5, 12, 20), 3, degree=2), None):
        monkeypatch.setattr(cuda_check, "CudaEngine", make)
        cuda_check.check_gpu.cache_clear()
        verdicts.append(cuda_check.check_gpu())
    cuda_check.check_gpu.cache_clear()
    assert verdicts[0] == (True, "a GPU")
    assert "off by" in verdicts[1][1]
    assert "TypeError" in verdicts[2][1]
    assert [works for works, _ in verdicts] == [True, False, False]
