"""Intensities that a computation can use: values that are not finite, spans that are extreme."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import ImageError, ParameterError

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

_LARGEST = 1e38  # of single precision, with room for what a fit adds
_FINEST = 1e-40  # a narrower span has fewer than 2**16 steps in single precision
_SMALLEST_PLAIN = 1e-38
_COARSE = 2.0**-16  # of the largest value: where single precision has 256 steps left
_TOO_COARSE = 2.0**-20
_ROUNDED = 2.0**-7  # of the largest value: where rounding to single precision leaves 2**16 steps


def is_single(low: float, high: float) -> bool:
    """Tell whether single precision is enough to scale intensities from low .. high to 0 .. 1.

    Examples
    --------
    >>> is_single(-1024, 3071), is_single(1e6, 1e6 + 1), is_single(-3e38, 3e38)
    (True, False, False)
    """
    span, largest = high - low, max(abs(low), abs(high))
    return bool(
        np.isfinite(span) and largest <= _LARGEST and span >= _SMALLEST_PLAIN
        and span >= _COARSE * largest
    )  # fmt: skip


def survives_rounding(dtype: np.dtype[Any], low: float, high: float) -> bool:
    """Tell whether intensities of a type can be made single precision before ``low`` is taken off.

    Examples
    --------
    >>> survives_rounding(np.dtype(np.float64), 0, 20)
    True
    >>> survives_rounding(np.dtype(np.float64), 3e5, 3e5 + 20)
    False
    >>> survives_rounding(np.dtype(np.float32), 3e5, 3e5 + 20)
    True
    """
    exact = np.can_cast(dtype, np.float32)
    span, largest = high - low, max(abs(low), abs(high))
    return is_single(low, high) and bool(exact or span >= _ROUNDED * largest)


def check_span(low: float, high: float) -> None:
    """Refuse intensities whose reconstruction single precision could not hold.

    Parameters
    ----------
    low, high : float
        Where most intensities lie, in the units of the image.

    Raises
    ------
    ImageError
        When they are larger than single precision goes, or differ by too little.
    """
    span, largest = high - low, max(abs(low), abs(high))
    if not (span <= _LARGEST and largest <= _LARGEST):
        raise ImageError(
            f"The image's intensities go from {low:.3g} to {high:.3g}, further than single "
            "precision holds (1e38); divide them first."
        )
    if span < _TOO_COARSE * largest:
        raise ImageError(
            f"The image's intensities around {largest:.3g} differ by less than a millionth of "
            "that, more finely than single precision can tell apart; subtract their lowest value "
            "first."
        )
    if span < _FINEST:
        raise ImageError(
            f"The image's intensities span {span:.3g} only, less than single precision can "
            "resolve; multiply them first."
        )


def scale_to_unit(data: NDArray[Any], low: float, high: float, out: NDArray[np.float32]) -> None:
    """Map intensities from low .. high to 0 .. 1, clipped, whatever their size.

    Parameters
    ----------
    data : ndarray
    low, high : float
    out : ndarray of float32
        Of the same shape.
    """
    if survives_rounding(data.dtype, low, high):
        # An outlier may overflow here: it is clipped all the same.
        with np.errstate(over="ignore"):
            np.subtract(data, np.float32(low), out=out, dtype=np.float32)
            out *= np.float32(1.0 / (high - low))
    else:
        wide = np.asarray(data, np.float64)
        # Halves: the difference of the largest numbers of a type overflows it.
        out[...] = np.clip((wide / 2 - low / 2) / (high / 2 - low / 2), 0, 1)
    np.clip(out, 0, 1, out=out)


def from_unit(values: NDArray[np.float32], scale: float, offset: float) -> None:
    """Turn values from 0 .. 1 into intensities, in place; the inverse of :func:`scale_to_unit`.

    Parameters
    ----------
    values : ndarray of float32
    scale, offset : float
        Intensity = value x scale + offset, kept within single precision.
    """
    if is_single(offset, offset + scale):
        values *= np.float32(scale)
        values += np.float32(offset)
        return
    wide = values.astype(np.float64) * scale + offset
    limit = np.finfo(np.float32).max
    np.clip(wide, -limit, limit, out=wide)
    values[...] = wide


def parse_fill(text: float | str) -> float | None:
    """Return what stands for NaN: a number, or None for the background of each channel.

    Raises
    ------
    ParameterError
        When the text is neither a finite number nor "background".
    """
    if str(text).strip().lower() == "background":
        return None
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ParameterError(
            f"NaN can be filled with a number or with 'background', not with '{text}'."
        )
    return value


def background_of(values: NDArray[Any]) -> float:
    """Return what stands for places without a measurement: 0, or the lowest of negative values.

    Examples
    --------
    >>> background_of(np.array([3, 7])), background_of(np.array([-1000, 60]))
    (0.0, -1000.0)
    """
    return min(float(values.min()), 0.0)


def fill_nan(volume: Volume, value: float | None = None) -> Volume:
    """Return a volume whose values are all finite; see :meth:`Volume.fill_nan`."""
    filled, texts = finite_volume(volume, value)
    for text in texts:
        warnings.warn(text, stacklevel=4)
    return filled


def finite_volume(volume: Volume, value: float | None = None) -> tuple[Volume, list[str]]:
    """Return a volume whose values are all finite, and what was done, a sentence per channel.

    Parameters
    ----------
    volume : Volume
    value : float, optional
        See :meth:`Volume.fill_nan`.
    """
    from dataclasses import replace

    if volume.data.dtype.kind != "f" or np.isfinite(volume.data).all():
        return volume, []
    missing = _missing(volume.data) if value is None else None
    channels, texts = [], []
    for c, (name, channel) in enumerate(zip(volume.channel_names, volume.data, strict=True)):
        filled, text = _filled(channel, value, f"The image '{name}'")
        channels.append(filled)
        if text and missing is not None and missing[c].any():
            text = (
                f"{text[:-1]}; a segmentation goes by the other contrasts where they have values."
            )
        if text:
            texts.append(text)
    return replace(volume, data=np.stack(channels), missing=missing), texts


def _missing(data: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where a channel is NaN and another one is not; None where that is nowhere."""
    found = np.isnan(data)
    found &= ~found.all(axis=0)
    return found if found.any() else None


def _filled(
    channel: NDArray[Any], value: float | None, where: str
) -> tuple[NDArray[Any], str | None]:
    """Return a channel without NaN and infinite values, and what was done."""
    finite = np.isfinite(channel)
    if finite.all():
        return channel, None
    if not finite.any():
        raise ImageError(f"{where} holds no finite value: all are NaN or infinite.")
    known = channel[finite]
    low, high = known.min(), known.max()
    background = value if value is not None else background_of(known)
    nan = np.isnan(channel)
    missing, infinite = int(nan.sum()), int(channel.size - finite.sum() - nan.sum())
    with np.errstate(over="ignore"):
        filled = np.where(nan, channel.dtype.type(background), channel)
    if not np.isfinite(filled[nan]).all():
        raise ParameterError(
            f"NaN cannot be filled with {background:g} in a {channel.dtype} image."
        )
    parts = []
    if missing:
        share = 100 * missing / channel.size
        kind = "background" if value is None else "given"
        parts.append(
            f"NaN in {_voxels(missing)} ({share:.2g} %), taken as {background:.6g} ({kind})"
        )
        enclosed = _enclosed(nan)
        if enclosed:
            parts.append(f"{enclosed:,} of them enclosed by other values")
    if infinite:
        np.clip(filled, low, high, out=filled)
        parts.append(
            f"infinite values in {_voxels(infinite)}, taken as the lowest ({low:.6g}) or highest "
            f"({high:.6g}) finite one"
        )
    return filled, f"{where}: {'; '.join(parts)}."


def _voxels(count: int) -> str:
    return f"{count:,} voxel{'s' * (count != 1)}"


def _enclosed(nan: NDArray[np.bool_]) -> int:
    """Count the NaN that other values enclose, in the volume (in the plane, if it is flat)."""
    from scipy.ndimage import binary_fill_holes

    flat = np.squeeze(nan)
    known = ~flat
    return int((binary_fill_holes(known) & flat).sum())
