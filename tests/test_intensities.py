"""Values that are not finite, and intensities of extreme size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli.app import app
from napari_medgs.data.intensities import (
    check_span,
    from_unit,
    is_single,
    parse_fill,
    scale_to_unit,
)
from napari_medgs.errors import ImageError, ParameterError
from napari_medgs.meshing.api import mesh_from_image

FAST = mg.FitParams(gaussians=60, iterations=8, backend="cpu")


def box(low: float = 0.0, high: float = 1.0) -> np.ndarray:
    image = np.zeros((4, 14, 16))
    image[:, 4:10, 4:11] = 1
    image += 0.05 * np.random.default_rng(0).random(image.shape)
    return image * (high - low) + low


def strokes() -> mg.Prompts:
    painted = np.zeros((4, 14, 16), int)
    painted[1, 7, 5:10] = 1
    painted[1, 1, 1:15] = painted[1, 12, 1:15] = 2
    return mg.Prompts(labels=painted, background=2)


def with_nan(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[:, :2] = np.nan
    return image


@pytest.mark.parametrize(
    ("image", "value", "expected"),
    [
        (with_nan(box()), None, 0.0),
        (with_nan(box(-1000, 400)), None, float(np.nanmin(with_nan(box(-1000, 400))))),
        (with_nan(box(-1000, 400)), -1024.0, -1024.0),
    ],
)
def test_nan_becomes_background(image: np.ndarray, value: float | None, expected: float) -> None:
    volume = mg.Volume.from_array(image.astype(np.float32))
    with pytest.warns(UserWarning, match=r"NaN in 128 voxels \(14 %\)"):
        filled = volume.fill_nan(value)
    nan = np.isnan(image)
    assert (filled.data[0][nan] == np.float32(expected)).all()
    assert (filled.data[0][~nan] == volume.data[0][~nan]).all()
    assert filled.grid is volume.grid
    assert filled.fill_nan() is filled


def test_enclosed_nan_are_counted() -> None:
    image = with_nan(box())
    image[2, 7, 7] = np.nan
    with pytest.warns(UserWarning, match="1 of them enclosed by other values"):
        mg.Volume.from_array(image).fill_nan()
    flat = np.ones((1, 5, 5))
    flat[0, 2, 2] = np.nan
    with pytest.warns(UserWarning, match="1 of them enclosed"):
        mg.Volume.from_array(flat).fill_nan()


def test_infinite_values_become_the_extremes() -> None:
    image = box(2, 5)
    image[0, 0, 0], image[0, 0, 1] = np.inf, -np.inf
    finite = image[np.isfinite(image)]
    with pytest.warns(UserWarning, match="infinite values in 2 voxels"):
        filled = mg.Volume.from_array(image).fill_nan(7.0).data[0]
    assert filled[0, 0, 0] == finite.max()
    assert filled[0, 0, 1] == finite.min()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_finite(value: float) -> None:
    volume = mg.Volume.from_array(np.full((3, 8, 8), value, np.float32))
    for job in (volume.fill_nan, volume.prepared, lambda: mg.fit(volume, FAST)):
        with pytest.raises(ImageError, match="holds no finite value"):
            job()


def test_a_value_that_does_not_fit_the_type() -> None:
    volume = mg.Volume.from_array(with_nan(box()).astype(np.float16))
    with pytest.raises(ParameterError, match="cannot be filled with 1e"):
        volume.fill_nan(1e6)


@pytest.mark.parametrize("text", ["nan", "inf", "air", ""])
def test_no_fill_value(text: str) -> None:
    with pytest.raises(ParameterError, match="a number or with 'background'"):
        parse_fill(text)


def test_fit_and_segment_fill_nan() -> None:
    volume = mg.Volume.from_array(with_nan(box()).astype(np.float32))
    with pytest.warns(UserWarning, match="NaN in 128"):
        result = mg.fit(volume, FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled = volume.fill_nan()
        segmented = mg.segment(volume, strokes(), fit_params=FAST)
    same = mg.fit(filled, FAST)
    assert (same.field.values == result.field.values).all()
    assert np.isfinite(result.metrics["psnr"])
    image = mg.render(result.field)
    # The reconstruction has the background there, never NaN.
    assert np.isfinite(image).all()
    assert abs(float(np.median(image[..., :1, :]))) < 0.2
    expected = mg.segment(filled, strokes(), fit_params=FAST)
    assert (segmented.labels == expected.labels).all()


def test_mesh_of_an_image_with_nan() -> None:
    image = np.full((8, 9, 9), np.nan, np.float32)
    image[2:6, 2:7, 2:7] = 5
    volume = mg.Volume.from_array(image)
    with pytest.warns(UserWarning, match="NaN in"):
        surface = mesh_from_image(volume.data[0], volume.grid, mg.MeshParams(level=2.5))[1]
    assert surface.is_watertight
    assert surface.volume == pytest.approx(100, rel=0.4)


@pytest.mark.parametrize("word", [[], ["--fill-nan"], ["--fill-nan", "background"]])
def test_command_line_fills_nan(tmp_path: Path, word: list[str]) -> None:
    file = tmp_path / "map.nii.gz"
    nib.save(nib.Nifti1Image(with_nan(box()).astype(np.float32), np.eye(4)), file)
    out, numbers = tmp_path / "out.medgs.safetensors", tmp_path / "n.json"
    options = ["--gaussians", "60", "--iterations", "5", "--json", str(numbers)]
    result = CliRunner().invoke(app, ["fit", *word, str(file), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("NaN in 128 voxels") == 1
    assert mg.load_field(out).info.intensity_offset[0] == 0


def test_command_line_fills_nan_with_a_value(tmp_path: Path) -> None:
    file, copy = tmp_path / "map.nii.gz", tmp_path / "copy.nii.gz"
    image = with_nan(box()).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), file)
    run = CliRunner().invoke
    assert run(app, ["convert", str(file), str(copy), "--fill-nan", "-5"]).exit_code == 0
    assert np.array_equal(nib.load(copy).get_fdata(), np.where(np.isnan(image), -5, image))
    copy.unlink()
    assert run(app, ["convert", str(file), str(copy)]).exit_code == 0
    assert np.array_equal(nib.load(copy).get_fdata(), image, equal_nan=True)
    wrong = run(app, ["convert", str(file), str(copy), "--fill-nan=air"])
    assert wrong.exit_code == 1
    assert "not with 'air'" in wrong.stderr


def test_batch_fills_nan(tmp_path: Path) -> None:
    from napari_medgs.batch import BatchParams, find_cases, fit_many

    with pytest.raises(ParameterError, match="not with 'air'"):
        BatchParams(fill_nan="air")
    nib.save(
        nib.Nifti1Image(with_nan(box()).astype(np.float32), np.eye(4)), tmp_path / "map.nii.gz"
    )
    batch = BatchParams(fill_nan=-5.0, workers=1)
    result = fit_many(find_cases(str(tmp_path)), tmp_path / "out", FAST, batch)
    field = mg.load_field(next((tmp_path / "out").glob("**/*.safetensors")))
    assert result.totals()["failed"] == 0
    assert field.info.intensity_offset[0] == -5


GOOD: dict[str, Any] = {
    "float32 1e-30": (box() * 1e-30).astype(np.float32),
    "float32 1e-38": (box() * 1e-38).astype(np.float32),
    "float64 around 1e6": box() + 1e6,
    "single precision with 600 steps": (box() + 2.0**24 / 600).astype(np.float32),
    "uint64, all of it": (box() / 1.05 * (2**64 - 2**13)).astype(np.uint64),
    "bool": box() > 0.5,
    "float16": box().astype(np.float16),
    "an outlier of 1e30": np.where(np.arange(896).reshape(4, 14, 16) == 5, 1e30, box()),
    "an outlier of 1e300": np.where(np.arange(896).reshape(4, 14, 16) == 5, 1e300, box()),
}
BAD: dict[str, Any] = {
    "float32 +-3e38": ((box() / 1.05 * 2 - 1) * 3e38).astype(np.float32),
    "float32 1e-42": (box() * 1e-42).astype(np.float32),
    "float64 1e300": box() * 1e300,
    "float64 +-1.7e308": (box() / 1.05 * 2 - 1) * 1.7e308,
    "float64 1e-310": box() * 1e-310,
    "float64 around 1e15": box() + 1e15,
    "uint64 around 2**63": (box() * 1000).astype(np.uint64) + np.uint64(2**63),
    "int64 around 2**60": (box() * 1000).astype(np.int64) + 2**60,
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", GOOD)
def test_extreme_intensities_that_are_fitted(name: str) -> None:
    image = GOOD[name]
    result = mg.fit(mg.Volume.from_array(image), FAST)
    rendered = np.asarray(mg.render(result.field), np.float64).reshape(image.shape)
    assert result.metrics["psnr"] > 15
    assert np.isfinite(rendered).all()
    real = np.asarray(image, np.float64)
    low, high = np.percentile(real, (1, 99))
    assert np.median(np.abs(rendered - real)) / (high - low) < 0.1
    labels = mg.segment(mg.Volume.from_array(image), strokes(), fit_params=FAST).labels
    plain = mg.segment(mg.Volume.from_array(box()), strokes(), fit_params=FAST).labels
    assert (labels == plain).mean() > 0.8


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", BAD)
def test_extreme_intensities_that_are_refused(name: str) -> None:
    volume = mg.Volume.from_array(BAD[name])
    with pytest.raises(ImageError, match=r"intensities .* (divide|multiply|subtract)"):
        mg.fit(volume, FAST)
    with pytest.raises(ImageError, match=r"intensities .* (divide|multiply|subtract)"):
        mg.segment(volume, strokes(), fit_params=FAST)


@given(st.floats(-1e37, 1e37), st.floats(1e-35, 1e37), st.sampled_from([np.float32, np.float64]))
def test_scaling_and_back(low: float, span: float, dtype: Any) -> None:
    high = low + span
    try:
        check_span(low, high)
    except ImageError:
        return
    data = np.linspace(low, high, 9).astype(dtype)
    unit = np.empty(9, np.float32)
    scale_to_unit(data, low, high, unit)
    exact = (data.astype(np.float64) - low) / (high - low)
    step = np.finfo(np.float32).eps * max(1.0, max(abs(low), abs(high)) / (high - low))
    assert np.abs(unit - np.clip(exact, 0, 1)).max() <= 4 * step
    from_unit(unit, high - low, low)
    assert np.isfinite(unit).all()
    assert np.abs(unit - data.astype(np.float64)).max() <= 8 * step * (high - low)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
@pytest.mark.parametrize("offset", [1000, 300_000, 30_000_000])
def test_an_offset_is_taken_off_before_values_are_rounded(dtype: Any, offset: int) -> None:
    data = (20 * np.random.default_rng(0).gamma(0.2, 1, 1000)).clip(0, 20).astype(dtype)
    plain, moved = np.empty(1000, np.float32), np.empty(1000, np.float32)
    scale_to_unit(data, 0, 20, plain)
    scale_to_unit(data + offset, offset, offset + 20, moved)
    assert np.abs(moved - plain).max() < 1e-5


def test_ordinary_ranges_are_scaled_in_single_precision() -> None:
    assert is_single(-1024, 3071)
    assert is_single(0, 65535)
    assert is_single(60000, 60100)
    assert not is_single(1, 1)
