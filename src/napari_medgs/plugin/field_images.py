"""The images, labels and errors of a field on its own grid. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.sections import center_values


@dataclass(frozen=True)
class Rendered:
    """A field on its own grid.

    Attributes
    ----------
    images : (M, Z, Y, X) ndarray of float32
    labels : (Z, Y, X) ndarray of integers, or None without a seg head
    """

    images: NDArray[np.float32]
    labels: NDArray[Any] | None


def render_field(
    field: GaussianField, backend: str = "auto", threads: int | None = None
) -> Rendered:
    """Render what a field has: its image, and its labels where it has classes."""
    from napari_medgs.rendering import render, render_labels

    images = np.zeros((0, *field.info.grid.shape), np.float32)
    if field.info.image_channels:
        images = render(field, "image", backend=backend, threads=threads)
    labels = None
    if field.info.class_names:
        labels = render_labels(field, backend=backend, threads=threads)
    return Rendered(images, labels)


def errors_at(
    field: GaussianField, target: NDArray[Any], rendered: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the absolute difference of two images (C, Z, Y, X), mean over channels, at centers.

    Sampled at the voxel nearest to every center; in the channels' own units.
    """
    total = np.zeros(len(field))
    for one, other in zip(target, rendered, strict=True):
        total += np.abs(center_values(field, one) - center_values(field, other))
    return total / max(len(target), 1)
