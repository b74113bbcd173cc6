"""Volumes in one TIFF file: several pages, ImageJ stacks and OME-TIFF, with their voxel sizes."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.orientation import SPL
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, ImageError, MedGSError
from napari_medgs.io._limits import check_file, check_inflation, check_memory
from napari_medgs.io._orientation_tag import page_orientation, refuse_turned
from napari_medgs.io._reasons import reason
from napari_medgs.io.fourth_axis import (
    FourthAxis,
    chosen_entries,
    entry_names,
    fourth_axis,
)
from napari_medgs.io.image_frame import brightness, quiet_tifffile

SUFFIXES = (".tif", ".tiff")
_MILLIMETERS = {
    "m": 1e3, "cm": 10.0, "mm": 1.0, "µm": 1e-3, "μm": 1e-3, "um": 1e-3, "nm": 1e-6,
    "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "inch": 25.4, "in": 25.4,
    "millimeter": 1.0, "pm": 1e-9, "Å": 1e-7,
}  # fmt: skip
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "µs": 1e-6, "min": 60.0, "h": 3600.0}
_PAGE_AXES = "ZIQR"  # axes that count pages and are read as z


def is_tiff_volume(path: str | Path) -> bool:
    """Tell whether a file is a TIFF of several pages, or OME-TIFF.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    bool
        False for other files, for damaged ones and for one plain page.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES) or not path.is_file():
        return False
    import tifffile

    try:
        with quiet_tifffile() as logged, tifffile.TiffFile(path) as opened:
            return bool(opened.is_ome) or len(opened.pages) > 1 or bool(logged)
    except Exception:
        # The reader of single frames says what is wrong with the file.
        return False


def has_voxel_sizes(path: str | Path) -> bool:
    """Tell whether a file is a TIFF of several pages that says how large its voxels are."""
    if not is_tiff_volume(path):
        return False
    import tifffile

    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as opened:
            sizes = _ome_sizes(opened)[0] if opened.is_ome else _imagej_sizes(opened)
    except Exception:
        # Reading says what is wrong with the file.
        return True
    return None not in sizes


def read_tiff_volume(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read a TIFF file of several pages as a volume, the first page lowest.

    Parameters
    ----------
    path : str or Path
        Multi-page TIFF, an ImageJ stack or OME-TIFF; gray or with channels.
    spacing : (z, y, x) in mm, optional
        Needed where the file has no voxel sizes; must agree where it has them.
    volume : int, optional
        Which time point to read, from 1, or which channel of a file without time.
    every : bool
        Read all time points as channels; ``Grid.source`` then says that they are volumes.

    Returns
    -------
    Volume
        Rows run to posterior and columns to left, as for single frames: TIFF has no patient
        orientation.

    Raises
    ------
    GeometryError
        When the file has no voxel sizes and none are given, or others are given.
    ImageError
        When it has several time points and none is chosen, other axes than time, channels, z, y
        and x, or pages that are stored mirrored or turned.
    ParameterError
        When there is no such volume.
    FileError
        When it is missing, truncated or damaged.
    MemoryEstimateError
        When it would not fit into memory.
    """
    import tifffile

    path = check_file(path, "a TIFF file")
    try:
        with quiet_tifffile() as logged, tifffile.TiffFile(path) as opened:
            pages = opened.series[:1] if opened.is_ome else opened.series
            series = pages[0]
            images = len(opened.series) if opened.is_ome else 1
            if any((s.shape, s.dtype, s.axes) != (series.shape, series.dtype, series.axes)
                   for s in pages):  # fmt: skip
                raise ImageError(
                    f"{path}: its pages differ in size or type; a volume needs equal pages."
                )
            several = len(pages) > 1
            if series.dtype.kind == "c":
                raise ImageError(f"{path}: the image is complex; take its magnitude first.")
            axes = "Q" * several + series.axes
            shape = (len(pages),) * several + tuple(int(n) for n in series.shape)
            own, names = _ome_sizes(opened) if opened.is_ome else (_imagej_sizes(opened), ())
            axis = _axis(opened, axes, shape)
            taken = chosen_entries(path, axis, volume, every)
            claimed = math.prod(shape) * series.dtype.itemsize
            check_inflation(path, claimed, path.stat().st_size)
            check_memory(path, 2 * claimed)
            for page in opened.pages:
                refuse_turned(path, page_orientation(page.aspage()))
            stack = [np.asarray(s.asarray()) for s in pages]
            array = np.stack(stack) if several else stack[0]
            array = brightness(array, opened.pages[0])
            if logged:
                raise FileError(f"{path}: truncated or damaged ({logged[0]}).")
    except MedGSError:
        raise
    except Exception as error:
        # The decoder raises many kinds of errors on damaged files, none of them documented.
        raise FileError(f"{path}: truncated or damaged ({reason(error)}).") from error
    if images > 1:
        warnings.warn(
            f"{path}: holds {images} images; the first is read. Save the others in files of their "
            "own to read them.",
            stacklevel=3,
        )
    data = _channels_first(path, *_take(array, axes, taken, axis))
    sizes = _spacing(path, own, spacing)
    stem = path.name
    for suffix in (*SUFFIXES, ".ome"):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    if axis.volumes and (every or len(names) != len(data)):
        title = entry_names(stem, axis, taken)
        channels = range(len(data) if len(title) < len(data) else 0)
        names = tuple(f"{title[0]} [{c}]" for c in channels) or title
    elif len(names) == axis.count and not axis.volumes:
        names = names[taken]
    if len(names) != len(data):
        names = entry_names(stem, axis, taken)
    return Volume.from_axes(
        data,
        SPL @ np.diag([*sizes, 1.0]) + 0.0,
        channel_names=names,
        source={
            "kind": "tiff",
            "dtype": data.dtype.name,
            **(axis.to_source() if every else {}),
        },
    )


def _axis(opened: Any, axes: str, shape: tuple[int, ...]) -> FourthAxis:
    """Return what the axis of several entries beside z, y and x holds: time before channels."""
    times = math.prod(n for a, n in zip(axes, shape, strict=True) if a == "T")
    if times > 1:
        return fourth_axis(times, "volumes", _time_step(opened))
    return fourth_axis(
        math.prod(n for a, n in zip(axes, shape, strict=True) if a in "CS"), "channels"
    )


def _take(
    array: NDArray[Any], axes: str, taken: slice, axis: FourthAxis
) -> tuple[NDArray[Any], str]:
    """Return the chosen entries; all time points become channels."""
    if taken.stop - taken.start < axis.count:
        wanted = "T" if axis.volumes else "CS"
        where = [k for k, a in enumerate(axes) if a in wanted and array.shape[k] > 1]
        if len(where) == 1:
            array = array[(slice(None),) * where[0] + (taken,)]
    elif axis.volumes and not any(a in "CS" and n > 1 for a, n in zip(axes, array.shape)):
        axes = "".join({"T": "C", "C": "A", "S": "A"}.get(a, a) for a in axes)
    return array, axes


def _time_step(opened: Any) -> float | None:
    """Return the seconds between time points, None where the file does not say."""
    metadata = opened.imagej_metadata or {}
    step: Any = metadata.get("finterval")
    unit = metadata.get("tunit", "s")
    if opened.is_ome:
        pixels = _pixels(opened)
        if pixels is None:
            return None
        step, unit = pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s")
    try:
        seconds = float(step) * _SECONDS[unit]
    except (KeyError, TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _channels_first(path: Path, array: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return (C, Z, Y, X) data of any order of axes."""
    for axis in "THPVMLAEW":  # time and rarer ones
        if axis in axes and array.shape[axes.index(axis)] > 1:
            what = "time points" if axis == "T" else f"entries along axis '{axis}'"
            raise ImageError(
                f"{path}: has {array.shape[axes.index(axis)]} {what}; save one of them first."
            )
    sizes = [(a, n) for a, n in zip(axes, array.shape, strict=True) if a in "CSYX" or n > 1]
    kept = [a for a, _ in sizes]
    array = array.reshape([n for _, n in sizes])
    pages = [a for a in kept if a in _PAGE_AXES and array.shape[kept.index(a)] > 1]
    channels = [a for a in kept if a in "CS" and array.shape[kept.index(a)] > 1]
    one_each = len(set(kept)) == len(kept)
    if not one_each or len(pages) > 1 or len(channels) > 1 or not {"Y", "X"} <= set(kept):
        raise ImageError(f"{path}: has axes {axes}; channels, z, y and x are read.")
    order = [kept.index(a) for a in (*channels, *pages, "Y", "X")]
    rest = [k for k in range(len(kept)) if k not in order]  # of size 1
    array = array.transpose([*rest, *order])
    array = array.reshape(array.shape[len(rest) :])
    if not channels:
        array = array[None]
    if not pages:
        array = array[:, None]
    array = array.astype(np.uint8) if array.dtype == np.bool_ else array
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _ome_sizes(opened: Any) -> tuple[tuple[float | None, ...], tuple[str, ...]]:
    """Return the (z, y, x) voxel sizes in mm and the channels' names of OME metadata."""
    pixels = _pixels(opened)
    if pixels is None:
        return (None, None, None), ()
    sizes = [
        _size(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm"))
        for a in "ZYX"
    ]
    channels = [e.get("Name") for e in pixels if e.tag.rpartition("}")[2] == "Channel"]
    return tuple(sizes), tuple(c for c in channels if c) if all(channels) else ()


def _pixels(opened: Any) -> ElementTree.Element | None:
    """Return the element "Pixels" of OME metadata, None where there is none."""
    try:
        root = ElementTree.fromstring(opened.ome_metadata or "")
    except ElementTree.ParseError:
        return None
    return next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)


def _imagej_sizes(opened: Any) -> tuple[float | None, ...]:
    """Return the (z, y, x) voxel sizes in mm of ImageJ's metadata."""
    metadata = opened.imagej_metadata or {}
    unit = _imagej_unit(metadata, "unit", "")
    if not metadata or unit not in _MILLIMETERS:
        return (None, None, None)
    tags = opened.pages[0].tags
    # Axes whose unit is another one than that of x name it.
    units = {axis: _imagej_unit(metadata, f"{axis}unit", unit) for axis in "yz"}
    in_plane: list[float | None] = []
    for name, own in (("YResolution", units["y"]), ("XResolution", unit)):
        over, under = tags[name].value if name in tags else (0, 1)
        in_plane.append(_size(under / over, own) if over else None)
    return (_size(metadata.get("spacing"), units["z"]), *in_plane)


def _imagej_unit(metadata: dict[str, Any], name: str, default: str) -> str:
    """Return a unit; ImageJ writes letters beyond ASCII as escapes, with digits in either case."""
    return re.sub(r"\\u00b5", "µ", str(metadata.get(name, default)), flags=re.IGNORECASE)


def _size(value: Any, unit: str) -> float | None:
    """Return a length in mm, None where there is no positive one of a known unit."""
    try:
        size = float(value) * _MILLIMETERS[unit]
    except (KeyError, TypeError, ValueError):
        return None
    return size if math.isfinite(size) and size > 0 else None


def _spacing(
    path: Path, own: tuple[float | None, ...], given: tuple[float, float, float] | None
) -> tuple[float, ...]:
    """Return the voxel sizes (z, y, x) in mm."""
    known = [size for size in own if size is not None]
    if given is not None:
        pairs = [(a, b) for a, b in zip(own, given) if a is not None]
        if any(not math.isclose(a, b, rel_tol=1e-3) for a, b in pairs):
            sizes = " x ".join("?" if a is None else f"{a:.4g}" for a in own)
            raise GeometryError(
                f"{path}: has its own voxel sizes (z, y, x) {sizes} mm, which the given spacing "
                "contradicts. A spacing is only for files without geometry."
            )
        return given
    if len(known) < 3:
        raise GeometryError(
            f"{path}: does not say how large its voxels are; give the spacing (z, y, x) in mm."
        )
    return tuple(known)
