"""MedMNIST ``.npz`` files: single images as volumes, whole sets as arrays."""

from __future__ import annotations

import math
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, ImageError, LabelError, ParameterError
from napari_medgs.io._limits import check_memory
from napari_medgs.io.medmnist.arrays import open_archive, open_member, read_array, skip_bytes
from napari_medgs.io.medmnist.download import fetch
from napari_medgs.io.medmnist.table import SETS, SetInfo

SPLITS = ("train", "val", "test")
# The last two colons only: a Windows drive has one of its own.
_SPEC = re.compile(r"^(?P<file>.+\.npz)(?::(?P<split>[^:/\\]*))?(?::(?P<index>[^:/\\]*))?$", re.I)


@dataclass(frozen=True)
class MedMNISTSet:
    """A whole MedMNIST file.

    Attributes
    ----------
    name : str
        The set's name, or the file's where the set is unknown.
    images : dict of str to ndarray
        By split ("train", "val", "test"): (N, H, W), (N, H, W, 3) or (N, D, H, W) uint8.
    labels : dict of str to ndarray
        By split: (N, L) integers; L > 1 for multi-label sets.
    task : str
        "binary-class", "multi-class", "ordinal-regression" or "multi-label, binary-class".
    class_names : tuple of str
    is_3d, is_rgb : bool
    """

    name: str
    images: dict[str, NDArray[Any]]
    labels: dict[str, NDArray[np.int64]]
    task: str
    class_names: tuple[str, ...]
    is_3d: bool
    is_rgb: bool

    @property
    def size(self) -> int:
        """Edge length of the images in pixels."""
        return int(next(iter(self.images.values())).shape[1])

    def volume(self, split: str, index: int) -> Volume:
        """Return one image as a volume."""
        count = len(self.images[split]) if split in self.images else 0
        if not 0 <= index < count:
            raise ParameterError(f"{self.name}: '{split}' has {count} images; no number {index}.")
        return _volume(self.images[split][index], self.name, split, index, None)


def is_spec(text: str | os.PathLike[str]) -> bool:
    """Tell whether a text is meant to be ``FILE.npz`` or ``FILE.npz:SPLIT:INDEX``."""
    return _SPEC.match(os.fspath(text)) is not None


def parse_spec(text: str) -> tuple[Path, str, int]:
    """Split ``FILE.npz:SPLIT:INDEX`` (FILE may have a drive letter).

    Raises
    ------
    ParameterError
        When split or index are missing or wrong.
    """
    match = _SPEC.match(text)
    form = "write FILE.npz:SPLIT:INDEX with SPLIT train, val or test and INDEX from 0"
    if match is None:
        raise ParameterError(f"{text}: no MedMNIST image; {form}.")
    file, split, index = match["file"], match["split"], match["index"]
    if split is None or index is None:
        raise ParameterError(f"{text}: a MedMNIST file holds many images; {form}.")
    if split not in SPLITS or not index.isdecimal():
        raise ParameterError(f"{text}: '{split}:{index}' is no image; {form}.")
    return Path(file), split, int(index)


def read_medmnist(text: str, *, spacing: tuple[float, float, float] | None = None) -> Volume:
    """Read one image of a MedMNIST file; only that image is held in memory.

    Parameters
    ----------
    text : str
        ``FILE.npz:SPLIT:INDEX``.
    spacing : (z, y, x) in mm, optional
        By default the publisher's where there is one (the sets of 64 mm cubes), else 1 mm.

    Returns
    -------
    Volume
        (1, 1, H, W), (3, 1, H, W) for RGB, or (1, D, H, W).

    Raises
    ------
    ParameterError
        When the text is no such spec, or the index is too large.
    FileError
        When the file is missing, damaged, or holds no such split.
    """
    path, split, index = parse_spec(text)
    with (
        open_archive(path) as archive,
        open_member(path, archive, f"{split}_images") as (stream, shape, dtype, fortran),
    ):
        if index >= shape[0]:
            raise ParameterError(
                f"{path}: '{split}' has {shape[0]} images; the last index is {shape[0] - 1}, not "
                f"{index}."
            )
        size = math.prod(shape[1:]) * dtype.itemsize
        if fortran:
            check_memory(path, shape[0] * size)
            image = read_array(path, stream, shape, dtype, fortran)[index].copy()
        else:
            check_memory(path, size)
            skip_bytes(path, stream, index * size)
            image = read_array(path, stream, shape[1:], dtype, False)
    return _volume(image, path.stem, split, index, spacing)


def load_set(
    source: str | Path, *, size: int = 28, cache: str | Path | None = None
) -> MedMNISTSet:
    """Load a whole MedMNIST set.

    Parameters
    ----------
    source : str or Path
        An ``.npz`` file, or a set's name, which is downloaded once.
    size : int
        Image size to download when a name is given: 28, 64, 128 or 224 (3D: 28 or 64).
    cache : str or Path, optional
        Where downloads are kept; see :func:`fetch`.

    Returns
    -------
    MedMNISTSet

    Raises
    ------
    FileError
        When the file is missing, damaged, or holds no images and labels of equal number.
    ParameterError
        When the name or size is unknown.
    MemoryEstimateError
        When the set would not fit into memory.
    """
    if not str(source).lower().endswith(".npz"):
        source = fetch(str(source), size=size, cache=cache)
    path = Path(source)
    images: dict[str, NDArray[Any]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    with open_archive(path) as archive:
        names = set(archive.namelist())
        total = sum(i.file_size for i in archive.infolist() if i.filename.endswith("_images.npy"))
        splits = [s for s in SPLITS if f"{s}_images.npy" in names]
        if not splits:
            raise FileError(f"{path}: not a MedMNIST file: it holds no train, val or test images.")
        for part in splits:
            with open_member(path, archive, f"{part}_images") as (stream, shape, dtype, fortran):
                check_memory(path, total)
                images[part] = read_array(path, stream, shape, dtype, fortran)
            with open_member(path, archive, f"{part}_labels") as (stream, shape, dtype, fortran):
                check_memory(path, math.prod(shape) * dtype.itemsize)
                labels[part] = _as_classes(
                    path, part, read_array(path, stream, shape, dtype, fortran)
                )
            if len(labels[part]) != len(images[part]):
                raise FileError(
                    f"{path}: '{part}' has {len(images[part])} images and {len(labels[part])} "
                    "labels; the file is damaged."
                )
    shapes = {i.shape[1:] for i in images.values()}
    if len(shapes) > 1:
        raise FileError(f"{path}: images of several shapes {sorted(shapes)}; the file is damaged.")
    shape = shapes.pop()
    rgb = _is_rgb(shape)
    if len(shape) not in (2, 3):
        raise ImageError(f"{path}: images of shape {shape}; 2D, RGB or 3D images are read.")
    name, info = _identify(path)
    widths = {a.shape[1] for a in labels.values()}
    if len(widths) > 1:
        raise FileError(
            f"{path}: splits have {sorted(widths)} labels per image; the file is damaged."
        )
    task, classes = _task(info, labels)
    return MedMNISTSet(name, images, labels, task, classes, len(shape) == 3 and not rgb, rgb)


def _may_be_colors(shape: tuple[int, ...]) -> bool:
    """Tell whether a volume's shape is that of square pixels with colors at either end."""
    deep, high, wide = shape
    return (wide == 4 and deep == high > 4) or (deep in (3, 4) and high == wide > 4)


def _is_rgb(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == 3


def _identify(path: Path) -> tuple[str, SetInfo | None]:
    """Return a set's name and what is known of it, judged by the file's name."""
    name = re.sub(r"_(28|64|128|224)$", "", path.stem.lower())
    return (name, SETS[name]) if name in SETS else (path.stem, None)


def _volume(
    image: NDArray[Any],
    stem: str,
    split: str,
    index: int,
    spacing: tuple[float, float, float] | None,
) -> Volume:
    """Make a volume of one image (H, W), (H, W, 3) or (D, H, W)."""
    names: tuple[str, ...] = (f"{stem} {split} {index}",)
    if _is_rgb(image.shape):
        data = np.moveaxis(image, -1, 0)[:, None]
        names = ("red", "green", "blue")
    elif image.ndim == 2:
        data = image[None, None]
    elif image.ndim == 3:
        if _may_be_colors(image.shape):
            warnings.warn(
                f"{stem}: images of shape {image.shape} are read as volumes (z, y, x). Colors are "
                "read where they are three and the last axis.",
                stacklevel=4,
            )
        data = image[None]
    else:
        raise ImageError(f"{stem}: images of shape {image.shape}; 2D, RGB or 3D are read.")
    info = _identify(Path(stem + ".npz"))[1]
    if spacing is None:
        step = info.field_mm / data.shape[-1] if info and info.field_mm else 1.0
        spacing = (step, step, step)
    source = {"kind": "medmnist", "split": split, "index": index}
    return Volume.from_array(
        np.ascontiguousarray(data), spacing, channel_names=names, source=source
    )


def _as_classes(path: Path, part: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return labels as (N, L) integers from 0."""
    if labels.ndim > 2:
        raise LabelError(f"{path}: labels of '{part}' have shape {labels.shape}.")
    values = labels.reshape(len(labels), -1)
    result = values.astype(np.int64)
    if (result != values).any() or result.min() < 0:
        raise LabelError(f"{path}: labels of '{part}' are not integers from 0.")
    return result


def _task(
    info: SetInfo | None, labels: dict[str, NDArray[np.int64]]
) -> tuple[str, tuple[str, ...]]:
    """Return a set's task and class names, refusing labels that a known set cannot have."""
    width = next(iter(labels.values())).shape[1]
    highest = max(int(a.max()) for a in labels.values())
    if info is not None:
        many = info.task.startswith("multi-label")
        if (many and (width != len(info.classes) or highest > 1)) or (
            not many and (width != 1 or highest >= len(info.classes))
        ):
            raise LabelError(
                f"The labels do not fit the set's {len(info.classes)} classes "
                f"({width} per image, up to {highest})."
            )
        return info.task, info.classes
    if width > 1:
        return "multi-label, binary-class", tuple(str(k) for k in range(width))
    task = "binary-class" if highest < 2 else "multi-class"
    return task, tuple(str(k) for k in range(max(2, highest + 1)))
