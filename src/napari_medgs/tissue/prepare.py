"""What every way to tissue classes begins with: the image, its field, and which voxels count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Doubles, Floats
from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, GeometryError, ImageError, ParameterError
from napari_medgs.rendering.cpu.shares import ShareProjector
from napari_medgs.tissue.params import TissueParams

FIT_ITERATIONS = 40  # as before a segmentation
PADDING = 0.01  # of the voxels that have the lowest value, from which on it is padding
PADDING_ABOVE = 0.1  # the same, of a value that is not the lowest one
NEGATIVE = 0.01  # of the voxels that may be negative where a bias is asked for


@dataclass(frozen=True)
class Layout:
    """An image slice-first, in units of its own deviation.

    Attributes
    ----------
    volume : Volume
    slice_axis : int
        Axis of the canonical grid that comes first here.
    image : (C, Z, Y, X) ndarray of float32
        Intensities over ``scale``.
    region : (Z, Y, X) ndarray of bool
    scale : (C,) ndarray of float64
        Standard deviation of every contrast in the region.
    """

    volume: Volume
    slice_axis: int
    image: Floats
    region: NDArray[np.bool_]
    scale: Doubles

    @property
    def box(self) -> tuple[list[int], list[int]]:
        """First and last voxel of the region along every axis."""
        sides = [np.flatnonzero(self.region.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        return [int(s[0]) for s in sides], [int(s[-1]) for s in sides]

    def canonical(self, stack: NDArray[Any]) -> NDArray[Any]:
        """Return an array (..., Z, Y, X) with the axes of the canonical grid."""
        return np.ascontiguousarray(np.moveaxis(stack, -3, self.slice_axis - 3))

    @property
    def canonical_region(self) -> NDArray[np.bool_]:
        """The region on the canonical grid."""
        return self.canonical(self.region)


@dataclass(frozen=True)
class Prepared(Layout):
    """An image with its field.

    Attributes
    ----------
    field : GaussianField
    shares : ShareProjector
    """

    field: GaussianField
    shares: ShareProjector


def padding_of(volume: Volume) -> NDArray[np.bool_] | None:
    """Return the voxels around the image proper, which hold exactly one value in every contrast.

    It is the lowest one; or, as interpolation may have made some voxels darker than the padding,
    the one that half of the border or more has.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    (Z, Y, X) ndarray of bool, or None
        None where there is no padding.
    """
    lowest = [channel.min() for channel in volume.data]
    around = [np.median(_border(channel)) for channel in volume.data]
    for values, least in ((lowest, PADDING), (around, PADDING_ABOVE)):
        padded = np.ones(volume.shape, np.bool_)
        for channel, value in zip(volume.data, values, strict=True):
            padded &= channel == value
        if padded.mean() >= least:
            return padded
    return None


def _border(channel: NDArray[Any]) -> NDArray[Any]:
    """Return the voxels of the six faces; those at edges count more than once."""
    axes = [axis for axis in range(3) if channel.shape[axis] > 1]
    return np.concatenate([channel.take(k, axis).reshape(-1) for axis in axes for k in (0, -1)])


def region_of(
    volume: Volume, region: NDArray[np.bool_] | None, params: TissueParams
) -> NDArray[np.bool_]:
    """Return which voxels are divided.

    Parameters
    ----------
    volume : Volume
    region : (Z, Y, X) ndarray, optional
    params : TissueParams

    Returns
    -------
    (Z, Y, X) ndarray of bool

    Raises
    ------
    GeometryError
        When the region has another shape.
    ParameterError
        When it is empty.
    ImageError
        When what is in it has one gray level.
    """
    if region is None:
        inside = np.ones(volume.shape, np.bool_)
    else:
        inside = np.asarray(region) != 0
        if inside.shape != volume.shape:
            raise GeometryError(
                f"The region has shape {inside.shape}, the image {volume.shape}; give one on the "
                "grid of the image."
            )
        if not inside.any():
            raise ParameterError("The region is empty; mark at least two voxels.")
    if params.padding:
        padded = padding_of(volume)
        if padded is not None:
            inside &= ~padded
            if not inside.any():
                raise ParameterError(
                    "The region lies in the padding around the image; take another one, or count "
                    "the padding (padding=False, --no-padding)."
                )
    for name, channel in zip(volume.channel_names, volume.data, strict=True):
        values = channel[inside]
        if values.min() == values.max():
            where = "The image" if volume.channels == 1 else f"The channel '{name}'"
            raise ImageError(
                f"{where} has one gray level ({values.min():g}) in the region: there are no "
                "classes to tell apart."
            )
        if params.bias and np.count_nonzero(values < 0) > NEGATIVE * values.size:
            raise ParameterError(
                "A bias is a factor of intensities of 0 or more, as in MR; this image has "
                "negative ones. Leave out the bias."
            )
    return inside


def image_of_field(field: GaussianField) -> Volume:
    """Return the image that a field renders on its own grid.

    Parameters
    ----------
    field : GaussianField

    Returns
    -------
    Volume

    Raises
    ------
    ParameterError
        When the field holds no Gaussians, or no image.
    """
    if not len(field):
        raise ParameterError("The field holds no Gaussians; fit it again.")
    if not field.info.image_channels:
        raise ParameterError("The field holds no image; give the image, too.")
    from napari_medgs.rendering import render

    rendered = np.asarray(render(field), np.float32).reshape(-1, *field.info.grid.shape)
    return Volume(rendered, field.info.grid, field.info.image_channels)


def prepare(
    image: Volume | GaussianField,
    region: NDArray[np.bool_] | None,
    field: GaussianField | None,
    params: TissueParams,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> Prepared:
    """Check everything, fit a field where none is given, and lay the image out.

    Parameters
    ----------
    image : Volume or GaussianField
    region : (Z, Y, X) ndarray, optional
    field : GaussianField, optional
    params : TissueParams
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    Prepared

    Raises
    ------
    MedGSError
        As :func:`napari_medgs.tissue.api.tissues`.
    """
    if isinstance(image, GaussianField):
        if field is not None:
            raise ParameterError("Give an image with its field, or a field alone.")
        field, image = image, image_of_field(image)
    volume = image.prepared()
    inside = region_of(volume, region, params)
    if field is None:
        field = _fit(volume, params, progress, should_stop)
    else:
        field.check_grid(volume.grid)
        if not len(field):
            raise ParameterError("The field holds no Gaussians; fit it again.")
    layout = lay_out(volume, inside, field.info.slice_axis)
    shares = ShareProjector(field, params.threads)
    return Prepared(**vars(layout), field=field, shares=shares)


def lay_out(volume: Volume, inside: NDArray[np.bool_], axis: int) -> Layout:
    """Return an image slice-first and scaled.

    Parameters
    ----------
    volume : Volume
    inside : (Z, Y, X) ndarray of bool
        On the canonical grid.
    axis : int
        Of the slices.

    Returns
    -------
    Layout
    """
    stack = np.moveaxis(volume.data, 1 + axis, 1)
    flat = np.ascontiguousarray(np.moveaxis(inside, axis, 0))
    scaled = np.empty(stack.shape, np.float32)
    scale = np.empty(len(stack))
    for c, channel in enumerate(stack):
        largest = max(abs(float(channel.min())), abs(float(channel.max())))
        relative = channel.astype(np.float64) / largest
        deviation = float(relative[flat].std())
        scaled[c] = relative / deviation
        scale[c] = largest * deviation
    return Layout(volume, axis, scaled, flat, scale)


def _fit(
    volume: Volume, params: TissueParams, progress: ProgressCallback, should_stop: StopCallback
) -> GaussianField:
    from napari_medgs.fitting import FitParams, StopReason, fit

    # Only voxels of the image are divided: Gaussians between slices that are far apart would add
    # nothing, and what they share with both neighbors misleads the estimate of a bias field.
    settings = FitParams(iterations=FIT_ITERATIONS, interpolate=False, threads=params.threads)
    result = fit(volume, settings, progress=progress, should_stop=should_stop)
    if result.stopped_by == StopReason.CANCELLED:
        raise Cancelled("The fit before the division into tissues was canceled.")
    return result.field
