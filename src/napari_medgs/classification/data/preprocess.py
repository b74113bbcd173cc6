"""Bring any image to a classifier's channels, shape and range of intensities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.classification.card import ModelCard
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import ImageError


def image_of(source: Volume | GaussianField) -> Volume:
    """Return the image itself, or a field's image rendered on its own grid."""
    if isinstance(source, Volume):
        return source
    from napari_medgs.rendering import render

    return Volume(np.asarray(render(source)), source.info.grid, source.info.image_channels)


def prepare(volume: Volume, card: ModelCard) -> NDArray[np.float32]:
    """Return (C, *shape) float32 from 0 to 1, as a classifier reads it.

    Raises
    ------
    ImageError
        When channels, axes or intensities are not those of the classifier.
    """
    volume.check_image()
    have = 2 if volume.shape[0] == 1 else 3
    if have != card.ndim:
        wish = "one slice: choose one" if card.ndim == 2 else "a volume: several slices"
        raise ImageError(
            f"The classifier was trained on {card.ndim}D images and this has shape "
            f"{volume.shape}; it needs {wish}."
        )
    if volume.channels != card.channels:
        kind = "colors (3 channels)" if card.channels == 3 else f"{card.channels} channel(s)"
        raise ImageError(
            f"The classifier was trained on images of {kind} and this has {volume.channels}."
        )
    return to_shape(volume.data, card.shape, str(card.preprocessing.get("intensity", "uint8")))


def to_shape(data: NDArray[Any], shape: tuple[int, ...], intensity: str) -> NDArray[np.float32]:
    """Scale intensities to [0, 1] and resize (C, Z, Y, X) to (C, *shape).

    Raises
    ------
    ImageError
        When 8-bit intensities are wanted and these are none.
    """
    values = np.asarray(data, np.float32)
    if len(shape) == 2:
        values = values[:, 0]
    low, high = float(values.min()), float(values.max())
    if intensity == "shape":
        values = (values > 0.5 * (low + high)).astype(np.float32)
    elif intensity == "percentile":
        axes = tuple(range(1, values.ndim))
        bottom, top = np.percentile(values, (0.5, 99.5), axis=axes, keepdims=True)
        values = np.clip((values - bottom) / np.maximum(top - bottom, 1e-6), 0, 1)
    else:
        # A rendered field overshoots a little; that much is clipped.
        if low < -16 or high > 271:
            raise ImageError(
                f"The classifier was trained on 8-bit intensities (0 to 255) and these go from "
                f"{low:g} to {high:g}; rescale the image first."
            )
        values = np.clip(values / (255 if high > 1.1 else 1), 0, 1)
    values = values.astype(np.float32)
    if values.shape[1:] == tuple(shape):
        return values
    from scipy.ndimage import gaussian_filter, zoom

    factors = [n / m for n, m in zip(shape, values.shape[1:], strict=True)]
    # What the smaller grid cannot hold must not alias into it.
    blur = [0.0, *(max(0.0, 0.5 * (1 / f - 1)) for f in factors)]
    smooth = gaussian_filter(values, blur, mode="nearest") if max(blur) > 0 else values
    resized = zoom(smooth, [1, *factors], order=1, mode="nearest", grid_mode=True)
    if intensity == "shape":
        resized = (resized > 0.5).astype(np.float32)
    return np.clip(resized, 0, 1).astype(np.float32)


def shape_window(images: NDArray[Any]) -> tuple[int, ...]:
    """Return the smallest window that holds every training shape when centered in it."""
    inside: NDArray[np.bool_] = np.asarray(images[:, 0] > 0.5)
    sizes = []
    for axis in range(1, inside.ndim):
        others = tuple(a for a in range(1, inside.ndim) if a != axis)
        line = np.asarray(inside.any(axis=others))
        first, last = line.argmax(1), line.shape[1] - line[:, ::-1].argmax(1)
        sizes.append(int((last - first).max()))
    return tuple(sizes)


def centered_window(images: NDArray[Any], window: tuple[int, ...]) -> NDArray[np.float32]:
    """Crop (B, 1, Z, Y, X) shapes to a window about the middle of each one's bounding box."""
    result = np.zeros((len(images), images.shape[1], *window), np.float32)
    for k, image in enumerate(images):
        inside = np.argwhere(image[0] > 0.5)
        if not len(inside):
            raise ImageError("The image holds no shape: no value is above the middle.")
        middle = (inside.min(0) + inside.max(0) + 1) // 2
        source: list[Any] = [slice(None)]
        target: list[Any] = [slice(None)]
        for m, w, n in zip(middle, window, image.shape[1:], strict=True):
            start = int(m) - w // 2
            low, high = max(start, 0), min(start + w, n)
            source.append(slice(low, high))
            target.append(slice(low - start, high - start))
        result[(k, *target)] = image[tuple(source)]
    return result
