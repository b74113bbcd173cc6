"""Compressed fields for the Export widget: what they would be, and writing them. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_metadata import field_of
from napari_medgs.plugin.layer_volumes import volume_from_layers

if TYPE_CHECKING:
    from napari_medgs.compression import CompressParams

STEPS = (6.0, 4.5, 3.3, 2.5, 2.0, 1.6, 1.3, 1.0, 0.7)
"""Steps of the positions of the slider, from the smallest file to the best."""
USUAL = STEPS.index(2.5)
ALL_COLUMNS = 1.0
"""From this step on down all parameters are kept."""
PREVIEW_ITERATIONS, FEWEST_ITERATIONS = 60, 12
PREVIEW_VOXELS = 2_000_000
"""Larger images get fewer steps of fine-tuning in a preview, so that it takes a second or two."""


def params_for(position: int) -> CompressParams:
    """Return the settings of a position of the slider."""
    from napari_medgs.compression import CompressParams

    step = STEPS[position]
    if step <= ALL_COLUMNS:
        return CompressParams(profile="faithful", step=step)
    return CompressParams(step=step)


def image_of(layer: Any | None, field: GaussianField) -> Volume | None:
    """Return the image to tune to, or None for the field itself.

    Raises
    ------
    MedGSError
        When it is not the image of the field.
    """
    if layer is None:
        return None
    volume, _ = volume_from_layers([layer])
    if len(field.info.image_channels) != 1 or not volume.grid.matches(field.info.grid):
        raise ParameterError(f"{layer.name!r} is not the image of this field; choose another.")
    return replace(volume, grid=field.info.grid)


@dataclass(frozen=True)
class CompressionPreview:
    """What a compressed field would be.

    Attributes
    ----------
    metrics : dict
        Of the compression, after a few steps of fine-tuning.
    difference : (Z, Y, X) ndarray of float32
        Compressed rendering minus the image, or minus the field's rendering, first contrast.
    """

    metrics: dict[str, Any]
    difference: NDArray[np.float32]

    @property
    def text(self) -> str:
        """Size and quality in words."""
        numbers = self.metrics
        size = f"about {numbers['bytes'] / 1000:,.1f} kB, {numbers['ratio']:.1f} x smaller"
        if numbers["tuned_to"] == "image" and "psnr" in numbers:
            quality = f"at least {numbers['psnr']:.1f} dB (field {numbers['psnr_before']:.1f} dB)"
        elif "psnr_to_field" in numbers:
            quality = f"at least {numbers['psnr_to_field']:.1f} dB to the field"
        else:
            quality = ""
        if "dice_mean" in numbers:
            quality += f", Dice {numbers['dice_mean']:.3f}"
        return ", ".join(part for part in (size, quality.removeprefix(", ")) if part)


@dataclass(frozen=True)
class PreviewCompression:
    """Compress a field with few steps, and subtract.

    Attributes
    ----------
    field : GaussianField
    position : int
        Of the slider.
    volume : Volume or None
    """

    field: GaussianField
    position: int
    volume: Volume | None

    def __call__(
        self, progress: ProgressCallback, should_stop: StopCallback
    ) -> CompressionPreview:
        """Return size, quality and difference."""
        from napari_medgs.compression import compress
        from napari_medgs.rendering import render

        voxels = float(np.prod(self.field.info.grid.shape))
        wanted = int(PREVIEW_ITERATIONS * min(1.0, PREVIEW_VOXELS / voxels))
        params = replace(params_for(self.position), iterations=max(wanted, FEWEST_ITERATIONS))
        result = compress(
            self.field, params, self.volume, progress=progress, should_stop=should_stop
        )
        if not self.field.info.image_channels:
            empty = np.zeros(self.field.info.grid.shape, np.float32)
            return CompressionPreview(result.metrics, empty)
        shown = render(result.field)[0]
        aim = render(self.field)[0] if self.volume is None else self.volume.data[0]
        difference = (shown - np.asarray(aim, np.float32)).astype(np.float32)
        return CompressionPreview(result.metrics, difference)


@dataclass(frozen=True)
class SaveCompressed:
    """Compress a field in full and write it.

    Attributes
    ----------
    path : Path
    field : GaussianField
    position : int
    volume : Volume or None
    """

    path: Path
    field: GaussianField
    position: int
    volume: Volume | None

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Path:
        """Return what was written."""
        from napari_medgs.compression import compress

        result = compress(
            self.field,
            params_for(self.position),
            self.volume,
            progress=progress,
            should_stop=should_stop,
        )
        return result.save(self.path)


def field_to_compress(layer: Any | None) -> GaussianField:
    """Return a layer's field.

    Raises
    ------
    ParameterError
        When it has none.
    """
    field = None if layer is None else field_of(layer)
    if field is None:
        raise ParameterError("Choose a layer that has Gaussians.")
    return field
