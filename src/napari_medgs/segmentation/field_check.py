"""Whether a field looks like the image that it is to segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.content import find_content
from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.working_grid import working_grid

# dB. Own images of ten scans lie at most 4.7 below their fit, mirrored ones at least 8.1.
MARGIN = 7.0


@dataclass(frozen=True)
class FieldMismatch:
    """How much worse a field renders an image than the one that it was fitted to.

    Attributes
    ----------
    psnr : float
        Of the middle slice, in dB.
    fitted : float
        PSNR that the fit reached, in dB.
    """

    psnr: float
    fitted: float


def field_mismatch(
    volume: Volume, field: GaussianField, working_voxels: int = SegmentParams().working_voxels
) -> FieldMismatch | None:
    """Compare a field's rendering of the middle slice with an image.

    Parameters
    ----------
    volume : Volume
    field : GaussianField
    working_voxels : int
        Larger images are compared by their averages over blocks of voxels, as they are segmented.

    Returns
    -------
    FieldMismatch or None
        None where the PSNR is at most 7 dB below that of the fit, or nothing can be told: another
        grid or number of channels, no PSNR in the field, blending that needs PyTorch.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> volume = mg.Volume(head.image[None], head.grid)
    >>> field = mg.fit(volume, mg.FitParams(iterations=20)).field
    >>> field_mismatch(volume, field) is None
    True
    >>> upside_down = mg.Volume(head.image[None, :, ::-1] ** 2, head.grid)
    >>> found = field_mismatch(upside_down, field)
    >>> found.psnr < found.fitted - 7
    True
    """
    from napari_medgs.rendering import render_stack
    from napari_medgs.rendering.api import only_head

    info, fitted = field.info, field.info.metrics.get("psnr")
    if (
        not isinstance(fitted, int | float)
        or info.blend == "alpha"
        or len(info.image_channels) != volume.channels
        or not info.grid.matches(volume.grid)
        or not len(field)
    ):
        return None
    content = find_content(volume)
    if (
        content is not None and content.is_cropped
    ):  # Gaussians end outside of what they were fitted to
        volume = content.as_measured.volume(volume, every_channel=True)
        field = content.field(field)
        info = field.info
    place = working_grid(volume.grid, working_voxels)
    factors, grid = ((1, 1, 1), volume.grid) if place is None else (place.factors, place.grid)
    axis = info.slice_axis
    depth, rows, columns = (int(factors[a]) for a in info.stack_axes)
    middle = max(0, volume.shape[axis] // depth // 2)
    shown = only_head(field if place is None else field.on_grid(grid), "image")
    found = render_stack(shown, slices=np.array([middle]), backend="cpu")[:, 0]
    stack = np.moveaxis(volume.data, axis + 1, 1)
    slab = stack[:, middle * depth : (middle + 1) * depth].astype(np.float64)
    height, width = slab.shape[2] // rows, slab.shape[3] // columns
    blocks = slab[:, :, : height * rows, : width * columns].reshape(
        len(slab), slab.shape[1], height, rows, width, columns
    )
    truth = blocks.mean(axis=(1, 3, 5))
    per_channel = (slice(None), None, None)
    truth -= np.asarray(info.intensity_offset)[per_channel]
    truth /= np.asarray(info.intensity_scale)[per_channel]
    square = (truth.clip(0, 1) - found[:, :height, :width].clip(0, 1)) ** 2
    known = square[np.isfinite(square)]
    if not known.size or not known.any():
        return None
    psnr = float(-10 * np.log10(known.mean()))
    return FieldMismatch(psnr, float(fitted)) if psnr < fitted - MARGIN else None
