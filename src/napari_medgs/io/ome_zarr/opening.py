"""OME-Zarr folders and zip files, opened and checked: levels, axes, codecs, label images below."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs._optional import require
from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import SPL
from napari_medgs.errors import FileError, ImageError, MedGSError, MemoryEstimateError
from napari_medgs.io._reasons import reason
from napari_medgs.io.fourth_axis import FourthAxis, fourth_axis
from napari_medgs.io.ome_zarr.axes import spatial_shape
from napari_medgs.io.ome_zarr.metadata import Level, Multiscale, ome, parse_multiscale

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
    def stem(self) -> str:
        """The name of the file or folder without its suffix."""
        name = self.path.name
        for suffix in sorted(SUFFIXES, key=len, reverse=True):
            if name.lower().endswith(suffix):
                return name[: -len(suffix)]
        return name

    def channel_names(self, count: int) -> tuple[str, ...]:
        """Return the names of the channels, or numbered ones where the file names others."""
        names = self.image.channel_names
        if len(names) == count:
            return names
        return (self.stem,) if count == 1 else tuple(f"{self.stem} [{c}]" for c in range(count))

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
        shape = spatial_shape(self.image.axes, self.arrays[level].shape)
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


@contextmanager
def open_ome_zarr(path: str | Path) -> Iterator[OmeZarr]:
    """Open an image, and close its zip file after use.

    Raises
    ------
    MedGSError
        As :func:`read_ome_zarr`.
    """
    opened = open_unclosed(Path(path))
    try:
        yield opened
    except MedGSError:
        raise
    except MemoryError as error:
        raise MemoryEstimateError(f"{path}: does not fit into memory.") from error
    except Exception as error:
        # Stores and codecs raise many kinds of errors on damaged chunks.
        raise FileError(f"{path}: truncated or damaged ({reason(error)}).") from error
    finally:
        close = getattr(opened.arrays[0].store, "close", None)
        if close is not None:
            close()


def open_unclosed(path: Path) -> OmeZarr:
    """Open an image, whose store stays open; what a damaged one raises becomes one clear line."""
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
        raise FileError(f"{path}: not an OME-Zarr image, or damaged ({reason(error)}).") from error


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
