"""Strong smooth fields of brightness are found in the image and divided out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_medgs.data.volume import Volume
from napari_medgs.segmentation import Prompts, SegmentModel, fit_for_segmentation
from napari_medgs.segmentation.term_params import BiasParams
from napari_medgs.segmentation.terms.bias_field import brightness_field, without_bias

SHAPE = (16, 56, 60)
SPACING = np.array([3.0, 1, 1])


def position() -> NDArray[np.float64]:
    """Return coordinates from -1 to 1."""
    axes = [np.linspace(-1, 1, n) for n in SHAPE]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def bias(factor: float) -> NDArray[np.float64]:
    """Return a field by which one side of the body is ``factor`` times as bright as the other."""
    z, y, x = position()
    return np.exp(np.log(factor) * (0.4 * y + 0.3 * x + 0.15 * z + 0.2 * x**2))


def tissues() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a body of four tissues in air, and one of them, an organ."""
    rng = np.random.default_rng(0)
    z, y, x = position()
    body = y**2 + x**2 + 0.3 * z**2 < 0.85
    values = np.where(body, 0.5, 0.0)
    texture = gaussian_filter(rng.standard_normal(SHAPE), (1, 4, 4))
    values[body & (texture > texture.std())] = 0.8
    values[body & (texture < -texture.std())] = 0.3
    organ = ((y + 0.1) / 0.5) ** 2 + ((x - 0.25) / 0.4) ** 2 + (z / 0.8) ** 2 < 1
    values[organ] = 0.65
    return gaussian_filter(values, (0.3, 0.7, 0.7)), organ


def image(
    factor: float, values: NDArray[np.float64] | None = None, noise: float = 0.01
) -> NDArray[np.float32]:
    """Return the tissues times a field, with noise as magnitudes have it."""
    rng = np.random.default_rng(1)
    clean = (tissues()[0] if values is None else values) * bias(factor)
    real, imaginary = noise * rng.standard_normal((2, *SHAPE))
    return np.hypot(clean + real, imaginary).astype(np.float32) * 1000


@pytest.mark.parametrize("factor", [4.0, 8.0])
def test_field_is_found(factor: float) -> None:
    channel = image(factor)
    field = brightness_field(channel, SPACING)
    assert field is not None
    found = np.stack([field.slice(SHAPE, z) for z in range(SHAPE[0])])
    body = tissues()[0] > 0.2
    off = (found - np.log(bias(factor)))[body]
    assert off.std() < 0.12 * np.log(factor)
    even = without_bias(channel[None], SPACING)[0]
    assert brightness_field(even, SPACING) is None


def test_strokes_on_one_slice_are_enough_in_a_strong_field() -> None:
    values, organ = tissues()
    values = np.where(values < 0.1, values, (values + 0.5) / 2)  # tissues are more alike
    values[organ] = 0.75
    channel = image(8.0, gaussian_filter(values, (0.3, 0.7, 0.7)))
    volume = Volume.from_array(channel, spacing=tuple(SPACING)).prepared()
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[8, 18:34, 37], strokes[8, 25, 30:43] = 1, 1
    strokes[8, 6:50, 16], strokes[8, 44, 16:44], strokes[8, 1, 4:56] = 9, 9, 9
    strokes[8, 8, 22:40], strokes[8, 16:40, 53] = 9, 9
    model = SegmentModel(volume, fit_for_segmentation(volume))
    found = model.update(Prompts(labels=strokes, background=9)).labels == 1
    assert 2 * (found & organ).sum() / (found.sum() + organ.sum()) > 0.95


@pytest.mark.parametrize(
    "kind", ["none", "mild", "one tissue", "hot spot", "negative", "constant", "few", "zeros"]
)
def test_other_images_stay_as_they_are(kind: str) -> None:
    values, organ = tissues()
    channel = image(1.0)
    if kind == "mild":
        channel = image(1.5)
    elif kind == "one tissue":  # that really is brighter to one side
        largest = np.abs(values - 0.5) < 0.1
        channel = image(1.0, np.where(largest, values * bias(6.0), values))
    elif kind == "hot spot":  # as in PET, where nothing is sharp
        z, y, x = position()
        near = np.exp(-((y + 0.2) ** 2 + x**2 + 0.3 * z**2) / 0.05)
        channel = image(1.0, gaussian_filter(0.1 * values, (1, 3, 3)) + 2 * near)
    elif kind == "negative":
        channel = image(8.0) - 100
    elif kind == "constant":
        channel = np.where(organ, 7, 3).astype(np.float32)
    elif kind == "few":
        channel = image(8.0)[7:9, 20:30, 20:30]
    elif kind == "zeros":
        channel = np.zeros_like(channel)
    data = np.ascontiguousarray(channel)[None]
    assert without_bias(data, SPACING) is data


def test_a_channel_without_a_field_stays_and_missing_values_do_not_count() -> None:
    missing = np.zeros((2, *SHAPE), bool)
    missing[0, :, :, :20] = True
    strong = np.where(missing[0], 5000, image(8.0))
    data = np.stack([strong, image(1.0)]).astype(np.float32)
    even = without_bias(data, SPACING, missing=missing)
    np.testing.assert_array_equal(even[1], data[1])
    inside = (np.abs(tissues()[0] - 0.5) < 0.05) & ~missing[0]
    assert np.log(even[0][inside]).std() < 0.4 * np.log(data[0][inside]).std()


def test_settings() -> None:
    data = image(8.0)[None]
    assert without_bias(data, SPACING, BiasParams(least_range=50)) is data
    assert without_bias(data, SPACING, BiasParams(least_gain=5)) is data
    assert without_bias(data, SPACING, BiasParams(degree=3)) is not data
