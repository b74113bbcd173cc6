"""Preprocessing: a classifier's channels, shape and intensity range for any image."""

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


def check_shape(volume: Volume) -> None:
    """Refuse an image that is no mask of one shape, for classifiers of shapes.

    Two values are one, as are probabilities from 0 to 1.

    Raises
    ------
    ImageError
        For gray images, masks of several labels, and empty masks.
    """
    low, high = volume.data.min(), volume.data.max()
    if low == high:
        raise ImageError("The mask is empty, or full: there is no shape to classify.")
    if low >= 0 and high <= 1:
        return
    if not ((volume.data == low) | (volume.data == high)).all():
        raise ImageError(
            "The classifier reads one shape, inside or outside, and this image has more than two "
            f"values, from {low:g} to {high:g}: give a mask with one label."
        )


def prepare(volume: Volume, card: ModelCard) -> NDArray[np.float32]:
    """Return (C, *shape) float32 from 0 to 1, as a classifier reads it.

    Parameters
    ----------
    volume : Volume
    card : ModelCard

    Returns
    -------
    (C, *shape) ndarray of float32

    Raises
    ------
    ImageError
        When channels, dimensions or intensities differ from the classifier's.
    """
    volume = volume.prepared()
    ndim = 2 if volume.shape[0] == 1 else 3
    if ndim != card.ndim:
        expected = "a single slice" if card.ndim == 2 else "a volume of several slices"
        raise ImageError(
            f"The classifier was trained on {card.ndim}D images and this has shape "
            f"{volume.shape}: choose {expected}, or another model."
        )
    if volume.channels != card.channels:
        kind = "colors (3 channels)" if card.channels == 3 else f"{card.channels} channel(s)"
        raise ImageError(
            f"The classifier was trained on images of {kind} and this has {volume.channels}."
        )
    return resize_image(volume.data, card.shape, str(card.preprocessing.get("intensity", "uint8")))


def resize_image(
    data: NDArray[Any], shape: tuple[int, ...], intensity: str
) -> NDArray[np.float32]:
    """Scale intensities to [0, 1] and resize (C, Z, Y, X) to (C, *shape).

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
    shape : tuple of int
        (Y, X) or (Z, Y, X).
    intensity : {"uint8", "percentile", "shape"}
        Divide by 255, scale the 0.5 to 99.5 percentile range, or threshold at half the range.

    Returns
    -------
    (C, *shape) ndarray of float32

    Raises
    ------
    ImageError
        When 8-bit intensities are expected and the values are out of their range.
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
        # A rendered field overshoots a little, which is clipped.
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
    # Low-pass filter against aliasing on a coarser grid.
    blur = [0.0, *(max(0.0, 0.5 * (1 / f - 1)) for f in factors)]
    smooth = gaussian_filter(values, blur, mode="nearest") if max(blur) > 0 else values
    resized = zoom(smooth, [1, *factors], order=1, mode="nearest", grid_mode=True)
    if intensity == "shape":
        resized = (resized > 0.5).astype(np.float32)
    return np.clip(resized, 0, 1).astype(np.float32)


def shape_window(images: NDArray[Any]) -> tuple[int, ...]:
    """Return the smallest window that contains every training shape when centered in it."""
    inside: NDArray[np.bool_] = np.asarray(images[:, 0] > 0.5)
    sizes = []
    for axis in range(1, inside.ndim):
        others = tuple(a for a in range(1, inside.ndim) if a != axis)
        line = np.asarray(inside.any(axis=others))
        first, last = line.argmax(1), line.shape[1] - line[:, ::-1].argmax(1)
        sizes.append(int((last - first).max()))
    return tuple(sizes)


def centered_window(images: NDArray[Any], window: tuple[int, ...]) -> NDArray[np.float32]:
    """Crop (B, 1, Z, Y, X) shapes to a window about the center of each bounding box."""
    result = np.zeros((len(images), images.shape[1], *window), np.float32)
    for k, image in enumerate(images):
        inside = np.argwhere(image[0] > 0.5)
        if not len(inside):
            raise ImageError(
                "The image contains no shape: no value is above half of the intensity range."
            )
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
