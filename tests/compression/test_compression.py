"""Compression: sizes and losses that are asked for, with the image or without it."""

from __future__ import annotations

import numpy as np
import pytest

import napari_medgs as mg
from napari_medgs.compression import StepCoder
from napari_medgs.compression.problem import class_indices, make_target, scaled_images
from napari_medgs.compression.rates import Trial, coarsest_step, step_for_bytes
from napari_medgs.errors import Cancelled, FileError, GeometryError, LabelError, ParameterError
from napari_medgs.io.codec.columns import Quantization
from napari_medgs.metrics import dice, psnr
from napari_medgs.rendering import render_stack
from napari_medgs.rendering.parameters import from_parameters, to_parameters
from tests.test_field import make_field


def scene(spacing=(1.0, 1.0, 1.0), seed=0):
    """An image of smooth blobs with a mask of the brightest."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((10, 36, 40))
    image = np.zeros(z.shape)
    for _ in range(12):
        a, b, c = rng.uniform(0, 1, 3) * z.shape
        size = rng.uniform(2, 6)
        image += rng.uniform(20, 90) * np.exp(
            -((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 2 / size**2
        )
    mask = np.where(image > np.quantile(image, 0.9), 3, 0).astype(np.uint8)
    volume = mg.Volume.from_array((image + rng.normal(0, 1, z.shape)).astype(np.float32), spacing)
    return volume, mask


@pytest.fixture(scope="module")
def fitted():
    volume, mask = scene()
    params = mg.FitParams(gaussians=250, iterations=50, threads=1)
    return volume, mask, mg.fit(volume, params, mask).field


def quick(**given):
    return mg.CompressParams(**{"iterations": 25, "threads": 1, **given})


def test_small_is_a_tenth_of_the_size(fitted):
    volume, mask, field = fitted
    events = []
    result = mg.compress(field, quick(), volume, mask, progress=events.append)
    numbers = result.metrics
    assert numbers["bytes"] == len(result.data) < field.nbytes / 8
    assert numbers["ratio"] == field.nbytes / len(result.data)
    assert sum(numbers["bytes_of"].values()) == pytest.approx(numbers["bytes"], abs=2)
    assert numbers["loss"] < 2
    assert numbers["dice_mean_before"] - numbers["dice_mean"] < 0.05
    assert result.field.info.degree == 1
    assert (result.field.log_weight == 0).all()
    assert events[-1].stage == "done"
    assert any(event.psnr for event in events)


def test_numbers_agree_with_those_of_the_file(fitted, tmp_path):
    volume, mask, field = fitted
    result = mg.compress(field, quick(), volume, mask)
    path = result.save(tmp_path / "a.medgs")
    again = mg.load_field(path)
    for name in again.tensor_names():
        np.testing.assert_array_equal(getattr(again, name), getattr(result.field, name))
    scale, low = field.info.intensity_scale[0], field.info.intensity_offset[0]
    truth, shown = (
        np.clip((image - low) / scale, 0, 1) for image in (volume.data[0], mg.render(again)[0])
    )
    assert psnr(truth, shown, data_range=1.0) == pytest.approx(result.metrics["psnr"], abs=0.01)
    assert again.info.metrics["psnr"] == pytest.approx(result.metrics["psnr"], rel=1e-5)
    assert again.info.metrics["compression"]["step"] == 2.5
    found = dice(mg.render_labels(again) == 3, mask == 3)
    assert found == pytest.approx(result.metrics["dice"]["3"], abs=1e-6)


def test_fine_tuning_pays(fitted):
    volume, mask, field = fitted
    rounded = mg.compress(field, quick(iterations=0), volume, mask).metrics
    tuned = mg.compress(field, quick(), volume, mask).metrics
    assert tuned["psnr"] > rounded["psnr"] + 1
    assert abs(tuned["bytes"] / rounded["bytes"] - 1) < 0.15


def test_the_image_is_a_better_aim_than_the_rendering(fitted):
    volume, _, field = fitted
    own = mg.compress(field, quick(iterations=60)).metrics
    seen = mg.compress(field, quick(iterations=60), volume)
    assert own["tuned_to"] == "rendering"
    assert seen.metrics["tuned_to"] == "image"
    alone = mg.compress(field, quick(iterations=60)).field
    truth = scaled_images(field, volume)
    errors = [
        np.mean((np.clip(render_stack(f)[:1], 0, 1) - truth) ** 2) for f in (alone, seen.field)
    ]
    assert errors[1] < errors[0]


def test_faithful_keeps_all_columns(fitted):
    volume, mask, field = fitted
    result = mg.compress(field, quick(profile="faithful"), volume, mask)
    assert result.field.info.degree == field.info.degree
    assert (result.field.log_weight != 0).any()
    assert result.metrics["loss"] < 0.3
    assert result.metrics["ratio"] > 5


def test_exact_is_exact(fitted):
    volume, mask, field = fitted
    result = mg.compress(field, mg.CompressParams(profile="exact"), volume, mask)
    again = mg.decompress(result.data)
    for name in field.tensor_names():
        np.testing.assert_array_equal(getattr(again, name), getattr(field, name))
    assert result.metrics["loss"] == 0
    assert result.metrics["dice"] == result.metrics["dice_before"]


@pytest.mark.parametrize("most", [0.3, 1.5])
def test_the_loss_stays_within_its_limit(fitted, most):
    volume, mask, field = fitted
    result = mg.compress(field, quick(max_loss=most), volume, mask)
    assert result.metrics["loss"] <= most
    assert result.metrics["ratio"] > 5
    if most > 1:
        finer = mg.compress(field, quick(max_loss=0.3), volume, mask)
        assert len(result.data) < len(finer.data)


def test_the_file_fits_into_its_bytes(fitted):
    volume, mask, field = fitted
    for most in (1800, 2600):
        result = mg.compress(field, quick(max_bytes=most), volume, mask)
        assert 0.9 * most < len(result.data) <= most
    voxels = np.prod(field.info.grid.shape)
    result = mg.compress(field, quick(bits_per_voxel=1.2), volume, mask)
    assert 0.9 * 1.2 < 8 * len(result.data) / voxels <= 1.2
    with pytest.raises(ParameterError, match=r"cannot be compressed to 200 bytes.*are the fewest"):
        mg.compress(field, quick(max_bytes=200))


def test_a_preview_counts_and_looks_like_the_image(fitted, tmp_path):
    volume, mask, field = fitted
    params = quick(max_bytes=3600, preview=0.2)
    result = mg.compress(field, params, volume, mask)
    assert len(result.data) <= 3600
    path = result.save(tmp_path / "a.medgs")
    small = mg.load_field(path, preview=True)
    assert len(small) == 50
    assert small.info.class_names == field.info.class_names
    shown = mg.render(small)[0]
    assert np.corrcoef(shown.ravel(), volume.data[0].ravel())[0, 1] > 0.95
    assert (mg.render_labels(small) == mask).mean() > 0.95


def test_what_is_not_the_fields_is_refused(fitted):
    volume, mask, field = fitted
    other = mg.Volume.from_array(np.random.default_rng(0).random((4, 8, 8)).astype(np.float32))
    with pytest.raises(GeometryError, match="4 x 8 x 8 voxels on another grid"):
        mg.compress(field, quick(), other)
    two = mg.Volume(np.repeat(volume.data, 2, axis=0), volume.grid, channel_names=("a", "b"))
    with pytest.raises(ParameterError, match="2 contrasts, the field 1"):
        mg.compress(field, quick(), two)
    with pytest.raises(LabelError, match="the label 9"):
        mg.compress(field, quick(), volume, np.where(mask, 9, 0))
    with pytest.raises(GeometryError, match="must share a grid"):
        mg.compress(field, quick(), volume, mask[:2])
    plain = mg.fit(volume, mg.FitParams(gaussians=30, iterations=2)).field
    with pytest.raises(LabelError, match="no classes"):
        mg.compress(plain, quick(), volume, mask)
    with pytest.raises(ParameterError, match="no Gaussians"):
        mg.compress(field.subset(np.zeros(len(field), bool)), quick())


def test_settings_that_contradict_are_refused():
    with pytest.raises(ParameterError, match="max_loss and max_bytes cannot hold at once"):
        mg.CompressParams(max_loss=0.3, max_bytes=1000)
    with pytest.raises(ParameterError, match="leave out step"):
        mg.CompressParams(profile="exact", step=1.0)
    with pytest.raises(ParameterError, match="profile must be"):
        mg.CompressParams(profile="tiny")
    with pytest.raises(ParameterError, match="bits_per_voxel must be"):
        mg.CompressParams(bits_per_voxel=0.0)


def test_cancel(fitted):
    volume, _, field = fitted
    calls = iter(range(100))
    with pytest.raises(Cancelled, match="nothing was written"):
        mg.compress(field, quick(), volume, should_stop=lambda: next(calls) > 5)


def test_without_a_record_a_loss_needs_the_image(fitted):
    volume, _, field = fitted
    bare = field.with_info(metrics={})
    with pytest.raises(ParameterError, match="give the image"):
        mg.compress(bare, quick(max_loss=0.3))
    assert mg.compress(field, quick(max_loss=1.0)).metrics["loss"] <= 1.0
    with pytest.raises(ParameterError, match="No steps lose less"):
        mg.compress(field, quick(max_loss=0.0, iterations=0), volume)


def test_slices_left_out_are_not_looked_at():
    volume, _ = scene()
    params = mg.FitParams(gaussians=150, iterations=20, holdout=2, slice_axis=0, threads=1)
    field = mg.fit(volume, params).field
    changed = volume.data.copy()
    changed[:, 1::2] = 0
    blind = mg.Volume(changed, volume.grid)
    first, second = (mg.compress(field, quick(iterations=5), v) for v in (volume, blind))
    np.testing.assert_array_equal(first.field.centers, second.field.centers)
    assert first.metrics["psnr"] == second.metrics["psnr"]


def test_what_lies_between_thick_slices_is_kept():
    volume, _ = scene(spacing=(4.0, 1.0, 1.0))
    field = mg.fit(volume, mg.FitParams(gaussians=200, iterations=30, threads=1)).field
    target = make_target(field, volume, None)
    assert target.factor == 2
    images = target.problem.target.images[0]
    assert len(images) == 19
    np.testing.assert_allclose(images[::2], scaled_images(field, volume)[0], atol=1e-6)
    finer = volume.grid.with_spacing((2.0, 1.0, 1.0))
    result = mg.compress(field, quick(iterations=60), volume)
    before, after = (mg.render(f, grid=finer)[0] for f in (field, result.field))
    assert np.abs(before - after).mean() < 0.05 * np.ptp(before)


def test_targets_follow_the_fields_scale_and_classes(fitted):
    volume, mask, field = fitted
    low, scale = field.info.intensity_offset[0], field.info.intensity_scale[0]
    np.testing.assert_allclose(
        scaled_images(field, volume)[0], np.clip((volume.data[0] - low) / scale, 0, 1), atol=1e-5
    )
    unknown = mask.astype(np.int16)
    unknown[0] = -1
    indices = class_indices(field, unknown)
    assert set(np.unique(indices)) == {0, 1, 255}
    assert ((indices == 1) == (unknown == 3)).all()


def test_a_coder_gives_what_the_file_gives(fitted):
    _, _, field = fitted
    coder = StepCoder(field, Quantization(2.0, 1, weights=False))
    rounded = coder.rounded(to_parameters(field))
    stored = coder.encode(field).field
    np.testing.assert_array_equal(
        np.sort(rounded[:, 0]), np.sort(stored.centers[:, 0].astype(np.float32))
    )
    assert coder.degree == 1
    assert coder.trainable().sum() == 14 + field.info.channels - 5


def test_searches():
    def measure(step):
        return Trial(step, 0.9 * np.log2(step), int(10_000 / step))

    best, trials = coarsest_step(measure, 0.5, 4.0)
    assert 0.3 < best.loss <= 0.5
    assert len(trials) <= 5
    assert coarsest_step(lambda step: Trial(step, 5.0, 1), 0.5, 1.0)[0] is None
    step = step_for_bytes(lambda step: int(10_000 / step), 5000, 1.0)
    assert step == pytest.approx(2.0, rel=0.02)
    with pytest.raises(ParameterError, match="the fewest"):
        step_for_bytes(lambda step: 10_000, 5000, 1.0)


def test_files_of_other_kinds_are_named(tmp_path):
    path = tmp_path / "a.medgs"
    path.write_bytes(b"something else entirely")
    with pytest.raises(FileError, match=r"a\.medgs: damaged, or no compressed field"):
        mg.decompress(path)
    with pytest.raises(FileError, match="the data: damaged"):
        mg.decompress(b"something else")


def test_moving_against_the_rate_makes_the_file_smaller(fitted):
    _, _, field = fitted
    coder = StepCoder(field, Quantization(1.0))
    table = to_parameters(field)
    before = len(coder.encode(field).data)
    slope = coder.rate_gradient(table, anew=True)
    assert slope.shape == table.shape
    assert (slope[:, :3] == 0).all()  # positions cost the same everywhere
    for _ in range(20):
        slope = coder.rate_gradient(table, anew=False)
        table = table - 0.5 * slope / np.maximum(np.abs(slope).max(axis=0) ** 2, 1e-9)
    after = from_parameters(table.astype(np.float32), field.background, field.info)
    assert len(coder.encode(after).data) < 0.97 * before


def test_many_classes_cost_little_where_most_are_absent():
    rng = np.random.default_rng(0)
    field = make_field(400, (10, 30, 30), classes=60)
    field.values[:, 1:] = -rng.uniform(3, 9, (400, 1))
    field.values[np.arange(400), 2 + rng.integers(0, 50, 400)] = 6
    coder = StepCoder(field, Quantization(2.0))
    assert coder.encode(field).parts["class scores"] < 400 * 3
    assert (coder.rate_gradient(to_parameters(field), anew=True)[:, 15:] == 0).all()
