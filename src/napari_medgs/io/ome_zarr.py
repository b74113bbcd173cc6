"""OME-Zarr images and masks (0.4 and 0.5): folders and zip files, of several resolutions."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._optional import require
from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import SPL
from napari_medgs.data.volume import Volume
from napari_medgs.errors import (
    FileError,
    GeometryError,
    ImageError,
    LabelError,
    MedGSError,
    MemoryEstimateError,
)
from napari_medgs.io._limits import human_bytes
from napari_medgs.io.fourth_axis import FourthAxis, chosen_entries, entry_names, fourth_axis
from napari_medgs.io.labels import as_labels
from napari_medgs.io.ome_zarr_metadata import (
    Level,
    Multiscale,
    label_colors,
    label_names,
    ome,
    parse_multiscale,
)

ZIP_SUFFIXES = (".zarr.zip", ".ozx")
SUFFIXES = (".ome.zarr", ".zarr", ".ome.zarr.zip", *ZIP_SUFFIXES)
_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_MOST_LABELS = 1000
# Codecs that decode numbers; others (pickle) may run what a file says.
_CODECS = {
    "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "delta", "shuffle", "bitround",
    "packbits", "fixedscaleoffset", "quantize", "crc32", "crc32c", "adler32", "fletcher32",
    "bytes", "transpose", "sharding_indexed",
}  # fmt: skip


@dataclass(frozen=True)
class OmeZarr:
    """An opened image of one or several resolutions.

    Attributes
    ----------
    path : Path
        As it was given, for messages.
    image : Multiscale
    arrays : tuple of zarr.Array
        One per level.
    attributes : mapping
        Of the group.
    labels : tuple of str
        Names of the label images below it.
    fixed : int or None
        The level that the path itself names.
    """

    path: Path
    image: Multiscale
    arrays: tuple[Any, ...]
    attributes: Mapping[str, Any]
    labels: tuple[str, ...]
    fixed: int | None = None

    def count(self, axis: str) -> int:
        """Return the length of an axis of the arrays."""
        k = self.image.axes.find(axis)
        return int(self.arrays[0].shape[k]) if k >= 0 else 1

    @property
    def fourth(self) -> FourthAxis:
        """What the axis beside z, y and x holds: time before channels."""
        if self.count("t") > 1:
            return fourth_axis(self.count("t"), "volumes", self.image.time_unit)
        return fourth_axis(self.count("c"), "channels")

    def grid(self, level: int, spacing: tuple[float, float, float] | None) -> Grid:
        """Return the grid of a level, its orientation being unknown."""
        described = self.image.levels[level]
        sizes = self.image.sizes(described, spacing, self.path)
        affine = SPL @ np.diag([*sizes, 1.0])
        affine[:3, 3] = SPL[:3, :3] @ self.image.origin(described, sizes)
        shape = _spatial_shape(self.image.axes, self.arrays[level].shape)
        return Grid(shape, affine + 0.0, {"kind": "ome-zarr"})


def is_ome_zarr(path: str | Path) -> bool:
    """Tell whether a path is a folder of Zarr, or named as a zip file of one.

    Parameters
    ----------
    path : str or Path
        An image, a label image below it, or one of its levels.
    """
    place = Path(path)
    if place.is_dir():
        return any((place / mark).is_file() for mark in _MARKS)
    if place.name.lower().endswith(ZIP_SUFFIXES):
        return True
    return any(p.name.lower().endswith(ZIP_SUFFIXES) and p.is_file() for p in place.parents)


def read_ome_zarr(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read an OME-Zarr image at the finest resolution that fits into memory.

    Parameters
    ----------
    path : str or Path
        A folder, a ``.zarr.zip`` or ``.ozx`` file, or the folder of one level, which is then
        read whatever its size.
    spacing : (z, y, x) in mm, optional
        Of the finest level; needed where the file has no units.
    volume : int, optional
        Which time point to read, from 1, or which channel of an image without time.
    every : bool
        Read all time points as channels.

    Returns
    -------
    Volume
        Axes run to superior, posterior and left, as for TIFF: OME-Zarr has no patient orientation.

    Raises
    ------
    FileError
        When it is damaged, no OME-Zarr image, or stored with a codec that is not read.
    ImageError
        When several time points are there and none is chosen, or it has other axes.
    GeometryError
        When its voxel size is not known.
    MemoryEstimateError
        When not even the coarsest level fits into memory.
    MissingPackageError
        When zarr is not installed.

    References
    ----------
    https://ngff.openmicroscopy.org/0.5/
    """
    with open_ome_zarr(path) as opened:
        taken = chosen_entries(path, opened.fourth, volume, every)
        level = _fitting_level(opened, taken)
        return _volume(opened, level, taken, opened.grid(level, spacing), every)


def read_ome_zarr_labels(
    path: str | Path,
    like: Grid | None = None,
    *,
    spacing: tuple[float, float, float] | None = None,
    volume: int | None = None,
) -> tuple[NDArray[Any], Grid]:
    """Read a label image: of an image with one label image below it, that.

    Parameters
    ----------
    path : str or Path
        A label image, an image with one below it, or any image of integers.
    like : Grid, optional
        The level of its shape is read where there is one.
    spacing, volume
        See :func:`read_ome_zarr`.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid

    Raises
    ------
    LabelError
        When values are not integers, or there are several label images or channels.
    MedGSError
        As :func:`read_ome_zarr`.
    """
    with open_ome_zarr(label_path(path)) as opened:
        taken = chosen_entries(path, opened.fourth, volume)
        level = _fitting_level(opened, taken, None if like is None else like.shape)
        shape = _spatial_shape(opened.image.axes, opened.arrays[level].shape)
        alike = like is not None and like.shape == shape
        try:
            grid = opened.grid(level, spacing)
        except GeometryError:
            if like is None or not alike:
                raise
            grid = like  # without sizes of its own it lies where its image does
        if like is not None and alike and like.source.get("kind") != "ome-zarr":
            grid = like
        found = _volume(opened, level, taken, grid)
    if found.channels > 1:
        raise LabelError(
            f"{path}: the mask has {found.channels} channels; choose one by --volume."
        )
    return as_labels(found.data[0], f"{path}: the mask"), grid


def label_path(path: str | Path) -> Path:
    """Return the label image of a path: the only one below an image, else the path itself.

    Raises
    ------
    LabelError
        When there are several.
    """
    place = Path(path)
    with open_ome_zarr(place) as opened:
        names = opened.labels
    if len(names) > 1:
        listed = ", ".join(str(place / "labels" / name) for name in names[:8])
        raise LabelError(f"{path}: holds {len(names)} label images; choose one of: {listed}.")
    return place / "labels" / names[0] if names else place


def read_ome_zarr_table(
    path: str | Path,
) -> tuple[dict[int, str], dict[int, tuple[float, float, float]]]:
    """Read the names and colors of a label image; empty where there are none.

    Raises
    ------
    MedGSError
        As :func:`read_ome_zarr_labels`.
    """
    with open_ome_zarr(label_path(path)) as opened:
        return label_names(opened.attributes), label_colors(opened.attributes)


@dataclass(frozen=True)
class LazyImage:
    """An image whose values are read when they are shown.

    Attributes
    ----------
    levels : list of dask arrays
        Per level, the finest first: (C, Z, Y, X), or (C, T, Z, Y, X) where there is time.
    grids : list of Grid
        Per level.
    channel_names : tuple of str
    axis : FourthAxis
        Of time.
    labels : tuple of str
        Names of the label images below it.
    is_mask : bool
        Whether it is a label image itself.
    """

    levels: list[Any]
    grids: list[Grid]
    channel_names: tuple[str, ...]
    axis: FourthAxis
    labels: tuple[str, ...]
    is_mask: bool


def open_lazily(
    path: str | Path, *, spacing: tuple[float, float, float] | None = None
) -> LazyImage:
    """Open all levels of an image without reading their values.

    Parameters
    ----------
    path, spacing
        See :func:`read_ome_zarr`. A zip file stays open as long as the arrays are used.

    Returns
    -------
    LazyImage

    Raises
    ------
    MedGSError
        As :func:`read_ome_zarr`.
    """
    from dask import array as da

    opened = _open(Path(path))
    timed = opened.count("t") > 1
    levels, grids = [], []
    chosen = range(len(opened.arrays)) if opened.fixed is None else [opened.fixed]
    for level in chosen:
        array = opened.arrays[level]
        lazy = da.from_array(array, chunks=array.chunks, name=False)
        levels.append(_arrange(lazy, opened.image.axes, timed))
        grids.append(opened.grid(level, spacing))
    axis = opened.fourth if timed else FourthAxis(1)
    return LazyImage(
        levels,
        grids,
        _channel_names(opened, levels[0].shape[0]),
        axis,
        opened.labels,
        "image-label" in ome(opened.attributes),
    )


@contextmanager
def open_ome_zarr(path: str | Path) -> Iterator[OmeZarr]:
    """Open an image, and close its zip file after use.

    Raises
    ------
    MedGSError
        As :func:`read_ome_zarr`.
    """
    opened = _open(Path(path))
    try:
        yield opened
    except MedGSError:
        raise
    except MemoryError as error:
        raise MemoryEstimateError(f"{path}: does not fit into memory.") from error
    except Exception as error:
        # Stores and codecs raise many kinds of errors on damaged chunks.
        raise FileError(f"{path}: truncated or damaged ({_reason(error)}).") from error
    finally:
        close = getattr(opened.arrays[0].store, "close", None)
        if close is not None:
            close()


def _open(path: Path) -> OmeZarr:
    """Open an image; what a damaged one raises becomes one clear line."""
    require("zarr", feature="Reading OME-Zarr")
    outer = _existing(path)
    if outer != path and not is_ome_zarr(outer):
        raise FileError(f"{path}: no such file or folder.")
    if not is_ome_zarr(outer):
        raise FileError(f"{path}: not an OME-Zarr image (a .zarr folder, .zarr.zip or .ozx file).")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of consolidated metadata and odd names
            return _open_image(path)
    except MedGSError:
        raise
    except Exception as error:
        raise FileError(
            f"{path}: not an OME-Zarr image, or damaged ({_reason(error)})."
        ) from error


def _existing(path: Path) -> Path:
    """Return a path, of a label image within a zip file the file's."""
    return next((p for p in (path, *path.parents) if p.exists()), path)


def _open_image(path: Path) -> OmeZarr:
    import zarr

    outer = _existing(path)
    inner = path.relative_to(outer).as_posix() if outer != path else ""
    store: Any
    if outer.is_dir():
        if inner:
            raise FileError(f"{path}: no such file or folder.")
        store = zarr.storage.LocalStore(outer, read_only=True)
        root: Any = zarr.open(store, mode="r")
    else:
        prefix = _zip_prefix(outer)
        store = zarr.storage.ZipStore(outer, mode="r")
        inside = "/".join(p for p in (prefix, "" if inner == "." else inner) if p)
        root = zarr.open(store, path=inside, mode="r")
    if isinstance(root, zarr.Array):
        return _open_level(path)
    attributes = root.attrs.asdict()
    image = parse_multiscale(path, attributes)
    if image is None:
        raise FileError(f"{path}: {_without_image(root, ome(attributes))}")
    arrays = []
    for level in image.levels:
        array = root[level.path]
        if not isinstance(array, zarr.Array):
            raise FileError(f"{path}: its level '{level.path}' is no array.")
        arrays.append(_checked(path, array, image, level))
    return OmeZarr(path, image, tuple(arrays), attributes, _labels_below(root))


def _open_level(path: Path) -> OmeZarr:
    """Open the image that an array is a level of."""
    for parent in list(path.parents)[:3]:
        if not is_ome_zarr(parent):
            continue
        opened = _open_image(parent)
        name = path.relative_to(parent).as_posix()
        for k, level in enumerate(opened.image.levels):
            if level.path == name:
                return OmeZarr(path, opened.image, opened.arrays, opened.attributes, (), k)
    raise FileError(f"{path}: a Zarr array that is no level of an OME-Zarr image.")


def _zip_prefix(path: Path) -> str:
    """Return the folder within a zip file that the image lies in; empty for its root."""
    with zipfile.ZipFile(path) as archive:
        roots = [n.rpartition("/")[0] for n in archive.namelist() if n.endswith(_MARKS)]
    return min(roots, key=lambda name: (len(name.split("/")) if name else 0, name), default="")


def _without_image(root: Any, record: Mapping[str, Any]) -> str:
    """Return what a group holds in place of an image."""
    if "plate" in record or "well" in record:
        return "a plate of several images; give the path of one of them, such as A/1/0 below it."
    if "labels" in record and isinstance(record["labels"], list):
        return "a group of label images; give the path of one of them."
    images = sorted(str(name) for name in root.group_keys())
    if "bioformats2raw.layout" in record and images:
        some = ", ".join(images[:8])
        return f"a collection of images; give the path of one of them: {some} below it."
    return "holds Zarr without the metadata of OME-Zarr (multiscales)."


def _labels_below(root: Any) -> tuple[str, ...]:
    """Return the names of the label images below an image."""
    if "labels" not in root:
        return ()
    listed = ome(root["labels"].attrs.asdict()).get("labels")
    if not isinstance(listed, list):
        return ()
    names = [n for n in listed if isinstance(n, str) and ".." not in n.split("/")]
    return tuple(names[:_MOST_LABELS])


def _checked(path: Path, array: Any, image: Multiscale, level: Level) -> Any:
    """Return an array that holds numbers, has the axes that are listed, and a known codec."""
    if len(array.shape) != len(image.axes):
        raise FileError(
            f"{path}: level '{level.path}' has {len(array.shape)} axes and its metadata "
            f"{len(image.axes)}."
        )
    if 0 in array.shape:
        raise ImageError(f"{path}: the image is empty: its shape is {array.shape}.")
    if array.dtype.kind not in "biuf":
        kind = "complex numbers" if array.dtype.kind == "c" else f"values of type {array.dtype}"
        raise ImageError(f"{path}: the image holds {kind}; plain gray values are needed.")
    unknown = sorted(_codecs(array.metadata.to_dict()) - _CODECS)
    if unknown:
        raise FileError(f"{path}: stored with the codec '{unknown[0][:40]}', which is not read.")
    return array


def _codecs(record: Mapping[str, Any]) -> set[str]:
    """Return the names of all codecs in the metadata of an array, nested ones too."""
    found: set[str] = set()
    entries = [record.get("compressor"), *(record.get("filters") or ())]
    entries += list(record.get("codecs") or ())
    for entry in entries:
        if not isinstance(entry, Mapping):
            if entry is not None:
                found.add(str(getattr(entry, "codec_id", entry)))
            continue
        found.add(str(entry.get("id", entry.get("name"))).removeprefix("numcodecs."))
        inner = entry.get("configuration")
        if isinstance(inner, Mapping):
            found |= _codecs({"codecs": [*(inner.get("codecs") or ()),
                                         *(inner.get("index_codecs") or ())]})  # fmt: skip
    return found


def _fitting_level(opened: OmeZarr, taken: slice, shape: tuple[int, ...] | None = None) -> int:
    """Return the level to read: of a wanted shape, else the finest that fits into memory.

    Raises
    ------
    MemoryEstimateError
        When none fits.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    fraction = (taken.stop - taken.start) / opened.fourth.count
    needed = [
        2 * math.prod(a.shape) * a.dtype.itemsize * fraction
        + 2 * math.prod(a.shards or a.chunks) * a.dtype.itemsize
        for a in opened.arrays
    ]
    wanted = [opened.fixed] if opened.fixed is not None else range(len(needed))
    if shape is not None and opened.fixed is None:
        same = [
            k
            for k in wanted
            if _spatial_shape(opened.image.axes, opened.arrays[k].shape) == tuple(shape)
        ]
        wanted = same or wanted
    fitting = next((k for k in wanted if needed[k] <= 0.9 * free), None)
    if fitting is None:
        raise MemoryEstimateError(
            f"{opened.path}: reading it needs about {human_bytes(min(needed[k] for k in wanted))} "
            f"and {human_bytes(free)} of memory are free. Close other programs, or give a coarser "
            "image."
        )
    if fitting != wanted[0]:
        sizes = " x ".join(
            map(str, _spatial_shape(opened.image.axes, opened.arrays[fitting].shape))
        )
        warnings.warn(
            f"{opened.path}: the full resolution needs about {human_bytes(needed[wanted[0]])} and "
            f"{human_bytes(free)} of memory are free; level {fitting} of {sizes} voxels is read.",
            stacklevel=4,
        )
    return fitting


def _volume(
    opened: OmeZarr,
    level: int,
    taken: slice,
    grid: Grid,
    every: bool = False,
) -> Volume:
    """Read a level."""
    axes, array, axis = opened.image.axes, opened.arrays[level], opened.fourth
    if axis.volumes and taken.stop - taken.start > 1 and opened.count("c") > 1:
        raise ImageError(
            f"{opened.path}: has {axis.count} volumes of {opened.count('c')} channels; choose one "
            "volume."
        )
    cut = "t" if axis.volumes else "c"
    index = tuple(taken if a == cut else slice(None) for a in axes)
    values = np.asarray(array[index])
    if axis.volumes and values.shape[axes.index("t")] > 1:
        data = _arrange(values, axes, timed=True)[0]
    else:
        data = _arrange(values, axes, timed=False)
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    listed = opened.image.channel_names
    if axis.volumes and opened.count("c") > 1:
        names = _channel_names(opened, len(data))
    elif not axis.volumes and len(listed) == axis.count:
        names = listed[taken]
    else:
        names = entry_names(_stem(opened.path), axis, taken)
    source: dict[str, Any] = {"kind": "ome-zarr", "dtype": data.dtype.name}
    if every:
        source |= axis.to_source()
    data = np.ascontiguousarray(data.astype(data.dtype.newbyteorder("="), copy=False))
    return Volume.from_axes(data, grid.affine, channel_names=names, source=source)


def _channel_names(opened: OmeZarr, count: int) -> tuple[str, ...]:
    names = opened.image.channel_names
    if len(names) == count:
        return names
    stem = _stem(opened.path)
    return (stem,) if count == 1 else tuple(f"{stem} [{c}]" for c in range(count))


def _stem(path: Path) -> str:
    name = path.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _spatial_shape(axes: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = (int(shape[axes.index(a)]) if a in axes else 1 for a in "zyx")
    return (z, y, x)


def _arrange(array: Any, axes: str, timed: bool) -> Any:
    """Return (C, Z, Y, X) values of any order of axes, or (C, T, Z, Y, X) with time."""
    if "t" in axes and not timed:
        array = array[tuple(0 if a == "t" else slice(None) for a in axes)]
        axes = axes.replace("t", "")
    order = "ctzyx" if timed else "czyx"
    array = array.transpose([axes.index(a) for a in order if a in axes])
    for k, axis in enumerate(order):
        if axis not in axes:
            array = array[(slice(None),) * k + (None,)]
    return array


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
