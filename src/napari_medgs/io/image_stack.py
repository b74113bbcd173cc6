"""A stack of numbered PNG, JPEG or TIFF frames, read as a volume and written back as frames."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import SPL
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io._limits import check_memory
from napari_medgs.io._values import cast
from napari_medgs.io.folders import natural_key
from napari_medgs.io.image_frame import SUFFIXES, read_frame, refuse_bombs, write_frame

_OTHER_FILES = (".dcm", ".zarr", ".npz", ".medgs", ".safetensors", ".ply", ".stl", ".obj", ".glb")


def find_frames(folder: str | Path) -> list[Path]:
    """Return the frames of a folder, or of its subfolder ``original``, in natural order.

    A path of one frame gives a list of that frame.
    """
    folder = Path(folder)
    if folder.is_file() and folder.suffix.lower() in SUFFIXES:
        return [folder]
    for place in (folder, folder / "original"):
        if place.is_dir():
            files = [
                p
                for p in place.iterdir()
                if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
            ]
            if files:
                return sorted(files, key=lambda p: (natural_key(p.stem), p.suffix))
    return []


def read_frames(
    folder: str | Path,
    *,
    spacing: tuple[float, float, float] | None,
    indexed: bool = False,
) -> Volume:
    """Read a folder of numbered frames as a volume, the first frame lowest.

    Parameters
    ----------
    folder : str or Path
        One frame, or a folder that holds PNG, JPEG or TIFF files of one size, gray or RGB, or a
        subfolder ``original`` that does. Sorted by the numbers in their names.
    spacing : (z, y, x) in mm
        Frame distance and pixel size, which image files do not state.
    indexed : bool
        Read palette images as their indices (masks) rather than as colors.

    Returns
    -------
    Volume
        One channel for gray frames, and for RGB ones whose three colors are equal throughout;
        three channels otherwise. Rows run to posterior, columns to left. Alpha is dropped.

    Raises
    ------
    GeometryError
        When no spacing is given, or frames differ in size.
    ImageError
        When frames differ in type or have several pages.
    FileError
        When there are none, or one cannot be read.
    MemoryEstimateError
        When they would not fit into memory.
    """
    folder = Path(folder)
    files = find_frames(folder)
    if not files:
        raise FileError(f"{folder}: the folder holds no PNG, JPEG or TIFF frames.")
    if spacing is None:
        raise GeometryError(
            f"{folder}: image frames have no voxel size; give the spacing (z, y, x) in "
            "mm: frame distance, pixel height, pixel width."
        )
    _check_numbers(folder, files)
    with refuse_bombs():
        first = read_frame(files[0], indexed)
        check_memory(folder, 3 * len(files) * first.nbytes)
        stack = np.empty((len(files), *first.shape), first.dtype)
        stack[0] = first
        for k, file in enumerate(files[1:], 1):
            frame = read_frame(file, indexed)
            if frame.shape[:2] != first.shape[:2]:
                raise GeometryError(
                    f"{file}: has {frame.shape[1]} x {frame.shape[0]} pixels, the first frame "
                    f"{first.shape[1]} x {first.shape[0]}: all frames must have one size."
                )
            if frame.shape != first.shape or frame.dtype != first.dtype:
                raise ImageError(
                    f"{file}: is {_describe(frame)}, the first frame {_describe(first)}: all "
                    "frames must be of one type."
                )
            stack[k] = frame
    names: tuple[str, ...]
    if stack.ndim == 3:
        data, names = stack[None], (folder.name,)
    elif all(np.array_equal(stack[..., 0], stack[..., c]) for c in (1, 2)):
        data, names = stack[None, ..., 0], (folder.name,)
    else:
        data, names = np.moveaxis(stack, -1, 0), ("red", "green", "blue")
    source = {
        "kind": "frames",
        "names": [p.stem for p in files],
        "dtype": first.dtype.name,
    }
    affine = SPL @ np.diag([*spacing, 1.0]) + 0.0
    return Volume.from_axes(data, affine, channel_names=names, source=source)


def write_frames(
    folder: str | Path,
    data: NDArray[Any],
    grid: Grid,
    dtype: DTypeLike | Literal["source"] | None = None,
) -> Path:
    """Write a volume as one image file per slice into a new folder.

    8 and 16-bit unsigned values become PNG, everything else (signed, 32-bit, floats, 16-bit RGB)
    TIFF: nothing is rescaled. Frames that came from a folder keep their names, others are
    ``0000``, ``0001``, ...

    Parameters
    ----------
    folder : str or Path
        Must be absent or empty; its parent must exist.
    data : (Z, Y, X), (1, Z, Y, X) or (3, Z, Y, X) ndarray
        Three channels are written as RGB.
    grid : Grid
        Where the data lie; slices along its first axis are written.
    dtype : optional
        Type to store; floats are rounded to an integer type and must fit. ``"source"``: clipped
        and rounded to the type that the frames had which the grid came from. By default the
        data's own.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileError
        When the folder is not empty or cannot be written.
    ImageError
        When the data have other than 1 or 3 channels.
    GeometryError
        When data and grid differ in shape.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> from napari_medgs.io import write_frames
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = np.zeros((2, 4, 4), np.uint8)
    ...     frames = write_frames(folder + "/frames", data, Grid(data.shape))
    ...     sorted(path.name for path in frames.iterdir())
    ['0000.png', '0001.png']
    """
    folder = Path(folder)
    array = np.asarray(data)
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or len(array) not in (1, 3) or array.dtype.kind not in "biuf":
        raise ImageError(
            f"Frames hold 1 or 3 channels of numbers; shape {array.shape} and type {array.dtype} "
            "cannot be frames; write NIfTI instead."
        )
    if array.shape[1:] != grid.shape:
        raise GeometryError(f"The data have shape {array.shape[1:]}, their grid {grid.shape}.")
    if isinstance(dtype, str) and dtype == "source":
        array = _as_source(array, grid)
        dtype = None
    array = cast(array, dtype)
    check_frames_folder(folder)
    if folder.is_dir():
        folder.rmdir()
    rgb = len(array) == 3
    png = array.dtype == np.uint8 or (array.dtype == np.uint16 and not rgb)
    suffix = ".png" if png else ".tif"
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for k, name in enumerate(_names(grid, array.shape[1])):
            frame = np.moveaxis(array[:, k], 0, -1) if rgb else array[0, k]
            write_frame(temporary / (name + suffix), np.ascontiguousarray(frame))
    return folder


def check_frames_folder(folder: str | Path) -> None:
    """Refuse a folder that frames cannot be written to.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    FileError
        When it holds something, is a file, or has the name of one.
    """
    from napari_medgs.io.formats import READ_SUFFIXES, WRITTEN_SUFFIXES

    folder = Path(folder)
    if folder.is_dir():
        if any(folder.iterdir()):
            raise FileError(f"{folder}: the folder is not empty; choose a new one for the frames.")
    elif folder.exists():
        raise FileError(f"{folder}: is a file; choose a new folder for the frames.")
    elif folder.name.lower().endswith((*READ_SUFFIXES, *SUFFIXES, *_OTHER_FILES)):
        raise FileError(
            f"{folder}: no such file can be written; name one that ends in "
            f"{', '.join(WRITTEN_SUFFIXES)}, or a new folder for one frame per slice."
        )


def _names(grid: Grid, count: int) -> list[str]:
    """Return the frames' names without suffix: the source's where they fit."""
    listed = grid.source.get("names") if grid.source.get("kind") == "frames" else None
    if isinstance(listed, list) and len(set(map(str, listed))) == len(listed) == count:
        # A name from a stranger's file must not lead out of the folder.
        names = [Path(str(n).replace("\\", "/")).name for n in listed]
        if names == listed and all(n not in ("", ".", "..") for n in names):
            return names
    digits = max(4, len(str(count - 1)))
    return [f"{k:0{digits}d}" for k in range(count)]


def _as_source(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Clip and round to the type of the frames that the grid came from."""
    name = grid.source.get("dtype") if grid.source.get("kind") == "frames" else None
    if name not in ("uint8", "uint16", "int16", "int32", "float32"):
        raise ImageError(
            "This grid did not come from frames, so their type is unknown; give a dtype."
        )
    wanted = np.dtype(name)
    if wanted.kind == "f":
        return array.astype(wanted, copy=False)
    limits = np.iinfo(wanted)
    return np.clip(np.rint(array), limits.min, limits.max).astype(wanted)


def _check_numbers(folder: Path, files: list[Path]) -> None:
    """Refuse duplicate names, warn about missing numbers."""
    stems = [p.stem for p in files]
    duplicates = (
        {s for s in stems if stems.count(s) > 1} if len(set(stems)) < len(stems) else set()
    )
    if duplicates:
        name = sorted(duplicates)[0]
        raise FileError(f"{folder}: there are several files for frame '{name}'; keep one of them.")
    found = [re.findall(r"\d+", s) for s in stems]
    if len(files) < 3 or not all(found):
        return
    # A number in a common prefix (patient7_0001) does not count frames: the last one does.
    numbers = np.array([int(f[-1]) for f in found])
    steps = np.diff(numbers)
    if (steps > 0).all() and (steps != np.median(steps)).any():
        k = int(np.argmax(steps != np.median(steps)))
        warnings.warn(
            f"{folder}: frames may be missing: '{stems[k + 1]}' follows '{stems[k]}'. The "
            "given spacing is used throughout.",
            stacklevel=4,
        )


def _describe(frame: NDArray[Any]) -> str:
    return f"{'RGB' if frame.ndim == 3 else 'gray'} {frame.dtype.name}"
