"""Joint fits with many classes: slots shared by classes that lie far apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import napari_medgs as mg
from napari_medgs.fitting import AdvancedFitParams, FitParams, OptimizerParams, fit
from napari_medgs.fitting.class_slots import BLOCK, MANY_CLASSES, REACH, class_slots
from napari_medgs.fitting.problem import make_problem
from napari_medgs.metrics import dice
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec, LossAndGradient, StackTarget
from napari_medgs.rendering.reference import ReferenceEngine

SHAPE = (8, 60, 60)
QUICK = FitParams(iterations=25, gaussians=1500, slice_axis=0, threads=1)


def cells(spacing: int = 12) -> NDArray[np.int32]:
    """Squares with gaps between them, of values that are no indices."""
    _, y, x = np.indices(SHAPE)
    inside = (y % spacing < spacing - 2) & (x % spacing < spacing - 2)
    number = (y // spacing) * -(-SHAPE[2] // spacing) + x // spacing
    return np.where(inside, 3 * number + 5, 0).astype(np.int32)


def picture(labels: NDArray[np.int32]) -> mg.Volume:
    rng = np.random.default_rng(0)
    level = np.concatenate([[0.0], rng.uniform(0.4, 1.0, labels.max())])
    noise = rng.normal(0, 0.01, labels.shape)
    return mg.Volume.from_array((level[labels] + noise).astype(np.float32)[None])


@pytest.fixture(scope="module")
def fitted() -> tuple[mg.Volume, NDArray[np.int32], mg.FitResult]:
    labels = cells()
    volume = picture(labels)
    return volume, labels, fit(volume, QUICK, labels)


def test_all_classes_are_found_and_the_field_holds_every_one(
    fitted: tuple[mg.Volume, NDArray[np.int32], mg.FitResult],
) -> None:
    _, labels, result = fitted
    values = [0, *np.unique(labels)[1:].tolist()]
    assert len(values) > MANY_CLASSES
    assert list(result.field.info.label_values) == values
    assert result.field.values.shape[1] == 1 + len(values) == len(result.field.background)
    found = mg.render_labels(result.field)
    for value in values[1:]:
        overlap = dice(found == value, labels == value)
        assert overlap > 0.95
        assert result.metrics["dice"][str(value)] == overlap


def test_labels_are_the_largest_logits_of_a_full_rendering(
    fitted: tuple[mg.Volume, NDArray[np.int32], mg.FitResult],
) -> None:
    field = fitted[2].field
    for grid in (field.info.grid, field.info.grid.with_spacing((1.0, 0.7, 1.6))):
        logits = mg.render(field, "seg", grid=grid)
        expected = np.asarray(field.info.label_values)[logits.argmax(axis=0)]
        np.testing.assert_array_equal(mg.render_labels(field, grid=grid), expected)


def test_classes_that_share_a_slot_lie_apart() -> None:
    labels = cells()
    problem = make_problem(picture(labels), QUICK, labels, {})
    slots = class_slots(problem)
    assert slots is not None
    assert slots.count < 12
    assert np.flatnonzero(slots.slot_of == 0).tolist() == [0]
    places = [np.argwhere(problem.target.labels == k) // BLOCK for k in range(len(slots.slot_of))]
    for a in range(1, len(places)):
        for b in range(1, a):
            if slots.slot_of[a] == slots.slot_of[b]:
                apart = np.abs(places[a][:, None] - places[b][None]).max(axis=2).min()
                assert apart > REACH


def test_few_classes_keep_channels_of_their_own() -> None:
    labels = cells(20)
    assert class_slots(make_problem(picture(labels), QUICK, labels, {})) is None


def test_tables_of_slots_and_of_classes_say_the_same(
    fitted: tuple[mg.Volume, NDArray[np.int32], mg.FitResult],
) -> None:
    volume, labels, _ = fitted
    problem = make_problem(volume, QUICK, labels, {})
    slots = class_slots(problem)
    assert slots is not None
    rng = np.random.default_rng(1)
    table = rng.uniform(0, 8, (50, 14 + 1 + slots.count)).astype(np.float32)
    table[:, :2] = rng.uniform(0, 60, (50, 2))
    full = slots.expand(table)
    np.testing.assert_array_equal(slots.reduce(full), table)
    absent = np.sort(full[:, 15:], axis=1)[:, : -slots.count]
    assert (absent < table[:, 15:].min(axis=1, keepdims=True)).all()


def test_a_fit_goes_on_from_a_file(
    fitted: tuple[mg.Volume, NDArray[np.int32], mg.FitResult], tmp_path: Path
) -> None:
    volume, labels, result = fitted
    path = tmp_path / "field.medgs.safetensors"
    mg.save_field(path, result.field)
    more = fit(
        volume,
        FitParams(iterations=3, slice_axis=0, threads=1),
        labels,
        initial=mg.load_field(path),
    )
    assert more.metrics["dice_mean"] > result.metrics["dice_mean"] - 0.01


def test_many_classes_on_geometry_that_stays() -> None:
    labels = cells()
    volume = picture(labels)
    image = fit(volume, QUICK).field
    params = FitParams(iterations=20, slice_axis=0, threads=1, freeze_geometry=True)
    result = fit(volume, params, labels, initial=image)
    np.testing.assert_array_equal(result.field.centers, image.centers)
    np.testing.assert_array_equal(result.field.values[:, :1], image.values)
    assert result.metrics["dice_mean"] > 0.9


def test_unlabeled_slices_do_not_count() -> None:
    labels = cells()
    labels[1::2] = -1
    result = fit(picture(cells()), QUICK, labels)
    assert result.metrics["dice_mean"] > 0.95


def test_many_classes_get_gaussians_by_what_is_labeled() -> None:
    labels = cells()
    flat = mg.Volume.from_array((labels > 0).astype(np.float32))
    params = FitParams(iterations=1, slice_axis=0, threads=1)
    few, many = fit(flat, params, np.minimum(labels, 1)).field, fit(flat, params, labels).field
    assert len(many) > 0.9 * 0.13 * np.count_nonzero(labels)
    assert len(many) > len(few)


def boxes(depth: int = 24) -> NDArray[np.int32]:
    """Boxes in three dimensions, each a class."""
    z, y, x = np.indices((depth, 48, 48))
    inside = (z % 12 < 10) & (y % 12 < 10) & (x % 12 < 10)
    return np.where(inside, 1 + (z // 12) * 16 + (y // 12) * 4 + x // 12, 0).astype(np.int32)


def noisy_picture(labels: NDArray[np.int32], sigma: float) -> mg.Volume:
    rng = np.random.default_rng(0)
    level = np.concatenate([[0.0], rng.uniform(0.4, 1.0, labels.max())])
    image = level[labels] + rng.normal(0, sigma, labels.shape)
    return mg.Volume.from_array(image.astype(np.float32))


def test_labels_are_seen_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = boxes()
    seen: list[NDArray[np.bool_]] = []
    original = CpuEngine.loss_and_gradient

    def spy(self: CpuEngine, parameters: Any, target: StackTarget) -> LossAndGradient:
        seen.append(target.seg_weights.copy())
        return original(self, parameters, target)

    monkeypatch.setattr(CpuEngine, "loss_and_gradient", spy)
    params = FitParams(iterations=8, gaussians=1500, slice_axis=0, threads=1, backend="cpu")
    volume = noisy_picture(labels, 0.01)
    fit(volume, params, labels)
    weights = np.stack(seen)
    assert (np.count_nonzero(weights, axis=1) == len(labels) // 4).all()
    every = weights[:4].sum(axis=0)  # all slices in four steps, with four times the weight
    np.testing.assert_allclose(every, every[0])
    for few in (
        (replace(params, quality=60.0, time_limit=0.5), labels),
        (params, labels % 5),
        (params, np.where(np.arange(24)[:, None, None] % 6 == 0, labels, -1)),
    ):
        seen.clear()
        fit(volume, *few)
        assert np.ptp(np.count_nonzero(np.stack(seen), axis=1)) == 0
        assert (seen[0] == seen[-1]).all()


def test_image_channels_alone_are_rendered_where_labels_do_not_count() -> None:
    rng = np.random.default_rng(0)
    shape, classes = (8, 12, 40), 6
    spec = EngineSpec(shape, 1 + classes, rng.random(1 + classes), threads=2)
    table = rng.normal(0, 0.3, (40, 14 + 1 + classes)).astype(np.float32)
    table[:, :3] = rng.uniform(0, shape[::-1], (40, 3))
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    images = rng.random((1, *shape)).astype(np.float32)
    weights = np.zeros(8, np.float32)
    weights[2::4] = 0.5
    target = StackTarget(images, np.ones((1, 8), np.float32), labels, weights, classes)
    rendered: list[tuple[int, int]] = []
    engine = CpuEngine(spec)
    splat = engine._splat

    def spy(values: Any, z: int, band: tuple[int, int], buffer: Any) -> None:
        rendered.append((z, buffer.shape[1] - 1))
        splat(values, z, band, buffer)

    engine._splat = spy  # type: ignore[method-assign]
    ours = engine.loss_and_gradient(table, target)
    assert all(channels == (1 + classes if z % 4 == 2 else 1) for z, channels in rendered)
    truth = ReferenceEngine(spec).loss_and_gradient(table, target)
    np.testing.assert_allclose(ours.gradient, truth.gradient, rtol=1e-2, atol=1e-4)


def test_fits_of_many_classes_end_sooner_where_noise_is_left() -> None:
    labels = boxes()
    params = FitParams(iterations=60, gaussians=1500, slice_axis=0, threads=1, backend="cpu")
    noisy = fit(noisy_picture(labels, 0.15), params, labels)
    assert noisy.metrics["iterations"] < 55
    assert min(noisy.metrics["dice"].values()) > 0.95
    assert fit(noisy_picture(labels, 0.15), params, labels % 5).metrics["iterations"] == 60
    still = AdvancedFitParams(optimizer=OptimizerParams(label_turns=1))
    whole = fit(noisy_picture(labels, 0.15), replace(params, advanced=still), labels)
    assert whole.metrics["iterations"] == 60
    assert noisy.metrics["psnr"] > whole.metrics["psnr"] - 0.3
