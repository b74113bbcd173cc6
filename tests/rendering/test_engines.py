"""Engines agree with the float64 reference: values, losses and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medgs.rendering import differentiable_render, make_engine
from napari_medgs.rendering.cpu.alpha import AlphaCpuEngine
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec, StackTarget
from napari_medgs.rendering.parameters import A1, A2, B2, GEOMETRY, LOG_R1, LOG_R2, LOG_RT, LOG_W
from napari_medgs.rendering.reference import BlendSettings, ReferenceEngine, grid_points, render_at

BLENDS = ("normalized", "sum", "alpha")


def random_table(rng, shape, count, channels):
    parameters = rng.normal(0, 0.3, (count, GEOMETRY + channels)).astype(np.float32)
    for column, size in zip((0, 1, 2), shape[::-1], strict=True):
        parameters[:, column] = rng.uniform(-1, size, count)
    parameters[:, [LOG_R1, LOG_R2, LOG_RT]] -= 0.5
    parameters[:, [A2, A2 + 1, B2, B2 + 1]] *= 0.1
    parameters[:, LOG_W] -= 1
    return parameters


def random_target(rng, shape, images, classes, l1=False):
    labels = np.zeros((0, 0, 0), np.uint8)
    if classes:
        labels = rng.integers(0, classes, shape).astype(np.uint8)
        labels[rng.random(shape) < 0.2] = 255
    image_weights = rng.uniform(0.5, 1.5, (images, shape[0])).astype(np.float32)
    seg_weights = rng.uniform(0.1, 1, shape[0]).astype(np.float32)
    if shape[0] > 5:
        image_weights[:, 3:5] = 0
        seg_weights[[2, 4]] = 0
    pictures = rng.random((images, *shape)).astype(np.float32)
    scored = np.arange(shape[0]) % 2 == 0
    return StackTarget(pictures, image_weights, labels, seg_weights, classes, l1, scored)


def engine_for(blend, shape, channels, background, degree, threads=2):
    kind = AlphaCpuEngine if blend == "alpha" else CpuEngine
    return kind(
        EngineSpec(
            shape,
            channels,
            background,
            degree=degree,
            cutoff=9.0,
            eps=1e-3,
            blend=blend,
            threads=threads,
        )
    )


def reference_for(blend, shape, channels, background, degree):
    return ReferenceEngine(
        EngineSpec(shape, channels, background, degree=degree, cutoff=9.0, eps=1e-3, blend=blend)
    )


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(
    ("shape", "images", "classes", "degree"),
    [
        ((7, 19, 37), 1, 0, 3),
        ((7, 21, 17), 2, 3, 2),
        ((1, 40, 30), 3, 2, 0),
        ((6, 9, 50), 1, 9, 1),
        ((3, 9, 12), 1, 70, 1),  # more channels than there are registers
    ],
)
def test_gradients_agree_with_reference(blend, shape, images, classes, degree):
    rng = np.random.default_rng(hash((shape, images)) % 1000)
    channels = images + classes
    parameters = random_table(rng, shape, 60, channels)
    parameters[:, A1 + degree : A1 + 3] = 0
    background = rng.random(channels).astype(np.float32)
    target = random_target(rng, shape, images, classes)
    ours = engine_for(blend, shape, channels, background, degree)
    truth = reference_for(blend, shape, channels, background, degree)
    squares, miss, gradient, _ = ours.loss_and_gradient(parameters, target)
    squares_true, miss_true, gradient_true, _ = truth.loss_and_gradient(parameters, target)
    assert squares == pytest.approx(squares_true, rel=1e-4)
    if isinstance(ours, CpuEngine) and classes:  # it leaves out slices whose labels do not count
        unlabeled = target.labels.copy()
        unlabeled[target.seg_weights == 0] = 255
        miss_true = truth.loss_and_gradient(parameters, replace(target, labels=unlabeled))[1]
    assert miss == pytest.approx(miss_true, rel=1e-3, abs=1e-3)
    trained = [c for c in range(parameters.shape[1]) if np.abs(gradient_true[:, c]).max() > 0]
    for column in trained:
        error = np.linalg.norm(gradient[:, column] - gradient_true[:, column])
        assert error <= 1e-3 * np.linalg.norm(gradient_true[:, column]), f"column {column}"


@pytest.mark.parametrize("blend", BLENDS)
def test_rendering_agrees_with_reference(blend):
    rng = np.random.default_rng(3)
    shape, channels = (6, 25, 33), 2
    parameters = random_table(rng, shape, 80, channels)
    background = np.array([0.3, 0.7], np.float32)
    ours = engine_for(blend, shape, channels, background, 3).render(parameters)
    truth = reference_for(blend, shape, channels, background, 3).render(parameters)
    # A voxel just at the rim of a Gaussian's support may fall on either side of it.
    assert np.median(np.abs(ours - truth)) < 1e-6
    assert np.quantile(np.abs(ours - truth), 0.999) < 1e-4


@pytest.mark.parametrize("blend", BLENDS)
def test_reference_gradient_by_finite_differences(blend):
    rng = np.random.default_rng(5)
    shape = (4, 9, 9)
    parameters = torch.tensor(random_table(rng, shape, 6, 2), dtype=torch.float64)
    # Without rims, whose jump no derivative sees.
    info = BlendSettings(blend, 3, 1e6, 1e-3)
    points = grid_points(shape, dtype=torch.float64)
    background = torch.tensor([0.2, 0.4], dtype=torch.float64)
    weights = torch.tensor(rng.random((len(points), 2)))

    def loss(table):
        return (weights * render_at(table, background, info, points) ** 2).sum()

    assert torch.autograd.gradcheck(loss, parameters.requires_grad_(), eps=1e-6, atol=1e-5)


def test_absolute_errors_agree_with_reference():
    rng = np.random.default_rng(8)
    shape = (5, 20, 20)
    parameters = random_table(rng, shape, 40, 1)
    background = np.zeros(1, np.float32)
    target = random_target(rng, shape, 1, 0, l1=True)
    ours = (
        engine_for("normalized", shape, 1, background, 3)
        .loss_and_gradient(parameters, target)
        .gradient
    )
    truth = reference_for("normalized", shape, 1, background, 3)
    _, _, expected, _ = truth.loss_and_gradient(parameters, target)
    assert np.linalg.norm(ours - expected) <= 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("blend", BLENDS)
def test_threads_do_not_change_the_answer(blend):
    rng = np.random.default_rng(9)
    shape = (9, 30, 30)
    parameters = random_table(rng, shape, 700, 1)
    background = np.zeros(1, np.float32)
    target = random_target(rng, shape, 1, 0)
    results = [
        engine_for(blend, shape, 1, background, 2, threads).loss_and_gradient(parameters, target)
        for threads in (1, 3)
    ]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    np.testing.assert_allclose(results[0][2], results[1][2], rtol=1e-3, atol=1e-3)


def test_normalized_blend_reproduces_constants():
    rng = np.random.default_rng(2)
    shape = (5, 16, 16)
    parameters = random_table(rng, shape, 50, 1)
    parameters[:, GEOMETRY] = 0.42
    engine = engine_for("normalized", shape, 1, np.array([0.42], np.float32), 3)
    np.testing.assert_allclose(engine.render(parameters), 0.42, atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(["normalized", "sum"]))
def test_some_slices_equal_all_slices(seed, degree, blend):
    rng = np.random.default_rng(seed)
    shape = (7, 12, 20)
    parameters = random_table(rng, shape, 30, 2)
    engine = engine_for(blend, shape, 2, np.zeros(2, np.float32), degree)
    wanted = np.flatnonzero(rng.random(7) < 0.5)
    np.testing.assert_array_equal(
        engine.render(parameters, wanted), engine.render(parameters)[:, wanted]
    )


def test_no_gaussians_is_background():
    engine = engine_for("normalized", (3, 8, 8), 1, np.array([0.25], np.float32), 1)
    picture = engine.render(np.zeros((0, GEOMETRY + 1), np.float32))
    np.testing.assert_allclose(picture, 0.25, rtol=1e-6)


@pytest.mark.parametrize("blend", ["normalized", "sum"])
def test_autograd_on_the_cpu_agrees_with_the_reference(rng, blend):
    shape = (5, 8, 9)
    parameters = torch.tensor(random_table(rng, shape, 12, 2))
    spec = EngineSpec(shape, 2, np.array([0.2, 0.4]), blend=blend, threads=2)
    weights = torch.tensor(rng.random((2, 3, *shape[1:])), dtype=torch.float32)
    slices = np.array([0, 2, 3])
    ours = parameters.clone().requires_grad_()
    (weights * differentiable_render(CpuEngine(spec), ours, slices).sin()).sum().backward()
    truth = parameters.double().requires_grad_()
    values = ReferenceEngine(spec)._stack(truth, slices)
    (weights * values.sin()).sum().backward()
    np.testing.assert_allclose(ours.grad, truth.grad, rtol=2e-3, atol=2e-4)


def test_engines_without_gradients_say_so():
    spec = EngineSpec((1, 4, 4), 1, blend="alpha")
    with pytest.raises(TypeError, match="no gradients"):
        differentiable_render(AlphaCpuEngine(spec), torch.zeros(1, 15))


def test_cpu_engine_can_be_made_by_name():
    assert isinstance(make_engine(EngineSpec((1, 4, 4), 1), "cpu"), CpuEngine)
    assert isinstance(make_engine(EngineSpec((1, 4, 4), 1, blend="alpha"), "cpu"), AlphaCpuEngine)
