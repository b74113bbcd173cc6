"""Entries of the corpus: how a file is made, and what is right by a reader that is not ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_medgs.data.orientation import SPL

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNITS = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}


@dataclass(frozen=True)
class Reference:
    """What a file holds.

    Attributes
    ----------
    points : (N, 3) ndarray
        Centers of the voxels, RAS millimeters.
    values : (N, C) ndarray
        By voxel and channel.
    sparse : bool
        Whether other voxels, all 0, may be there: cropped segmentations.
    """

    points: NDArray[np.float64]
    values: NDArray[Any]
    sparse: bool = False

    @classmethod
    def of(cls, values: NDArray[Any], affine: NDArray[Any], *, sparse: bool = False) -> Reference:
        """Make the reference of (I, J, K) or (I, J, K, C) values and their affine to RAS mm."""
        values = np.asarray(values)
        values = values.reshape(*values.shape, *(1,) * (4 - values.ndim))
        index = np.indices(values.shape[:3]).reshape(3, -1).T
        flat = values.reshape(-1, values.shape[3])
        if sparse:
            keep = flat.any(axis=1)
            index, flat = index[keep], flat[keep]
        return cls(index @ np.asarray(affine)[:3, :3].T + affine[:3, 3], flat, sparse)


@dataclass(frozen=True)
class Entry:
    """One file of the corpus.

    Attributes
    ----------
    name : str
        ``format/kind``.
    make : callable
        Takes a folder, writes the file, and returns its path and what is right: a
        :class:`Reference`, None where the file has to be refused, or a callable that compares
        what was read and returns the greatest distance in voxels.
    refused : str
        A regular expression that the message has to contain; empty where the file is read.
    warned : str
        A regular expression that a warning has to contain.
    reader : str
        "volume", "labels", "field", "mesh" or "session".
    options : dict
        Of the reader.
    """

    name: str
    make: Callable[[Path], tuple[Any, Any]]
    refused: str = ""
    warned: str = ""
    reader: str = "volume"
    options: dict[str, Any] = field(default_factory=dict)


class Corpus(dict[str, Entry]):
    """Entries by name."""

    def add(
        self,
        name: str,
        make: Callable[[Path], tuple[Any, Any]] | None = None,
        *,
        refused: str = "",
        warned: str = "",
        reader: str = "volume",
        **options: Any,
    ) -> Callable[..., Any]:
        """Add an entry; also a decorator of its maker."""

        def register(made: Callable[[Path], tuple[Any, Any]]) -> Callable[[Path], tuple[Any, Any]]:
            if name in self:
                raise ValueError(f"The corpus has two entries '{name}'.")
            self[name] = Entry(name, made, refused, warned, reader, options)
            return made

        return register if make is None else register(make)


CORPUS = Corpus()


def pattern(shape: tuple[int, ...], dtype: Any = np.int16) -> NDArray[Any]:
    """Return values that tell every voxel of a small array from every other."""
    values = np.arange(np.prod(shape), dtype=np.float64).reshape(shape, order="F")
    if np.dtype(dtype).kind == "f":
        values = values / 4 - 7
    elif np.dtype(dtype).kind == "i" and np.dtype(dtype).itemsize > 1:
        values = values * 3 - 50
    elif np.dtype(dtype).itemsize == 1:
        values = values % 119
    return values.astype(dtype)


def turned(degrees: float = 20.0) -> NDArray[np.float64]:
    """Return a rotation about two axes, (3, 3)."""
    a, b = np.radians(degrees), np.radians(degrees / 2)
    one = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    two = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    rotation: NDArray[np.float64] = one @ two
    return rotation


def affine_of(
    axes: NDArray[Any] | None = None,
    sizes: tuple[float, float, float] = (0.7, 0.9, 2.5),
    origin: tuple[float, float, float] = (-31.0, 17.0, 55.0),
) -> NDArray[np.float64]:
    """Return an affine (i, j, k, 1) to RAS mm of unit axes (columns), sizes and an origin."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if axes is None else axes) * sizes
    affine[:3, 3] = origin
    return affine


def orientations() -> dict[str, NDArray[np.float64]]:
    """Return the axes of all 48 orientations along the patient's axes, by their letters."""
    found = {}
    for i in range(3):
        for j in {0, 1, 2} - {i}:
            for signs in range(8):
                order = (i, j, 3 - i - j)
                axes = np.zeros((3, 3))
                letters = ""
                for column, row in enumerate(order):
                    sign = -1 if signs >> column & 1 else 1
                    axes[row, column] = sign
                    letters += ("LPI", "RAS")[sign > 0][row]
                found[letters] = axes
    return found


def by_nibabel(path: Path) -> Reference:
    """Return what nibabel reads, lengths in mm."""
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    values = values.reshape(*values.shape[:3], *(1,) * (3 - values.ndim), -1)
    affine = np.array(image.affine, dtype=np.float64)
    if hasattr(image.header, "get_xyzt_units"):
        factor = UNITS.get(image.header.get_xyzt_units()[0], 1.0)
        affine[:3] *= factor
    return Reference.of(values, affine)


def itk_affine(image: Any) -> NDArray[np.float64]:
    """Return the affine (i, j, k, 1) to RAS mm of a SimpleITK image of 2 to 4 axes."""
    size = image.GetDimension()
    lps = np.eye(4)
    n = min(size, 3)
    direction = np.array(image.GetDirection()).reshape(size, size)[:n, :n]
    lps[:n, :n] = direction * np.array(image.GetSpacing())[:n]
    lps[:n, 3] = np.array(image.GetOrigin())[:n]
    affine: NDArray[np.float64] = LPS_TO_RAS @ lps
    return affine


def by_itk(path: Path) -> Reference:
    """Return what ITK reads."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = np.moveaxis(array, -1, 0)
    elif image.GetDimension() == 4:
        values = array
    else:
        values = array[None]
    values = values.reshape(len(values), *(1,) * (4 - values.ndim), *values.shape[1:])
    return Reference.of(values.transpose(3, 2, 1, 0), itk_affine(image))


def by_nrrd(path: Path) -> Reference:
    """Return what pynrrd reads of a file with a space of its own, by the NRRD definition."""
    import nrrd

    values, header = nrrd.read(str(path))
    directions = np.asarray(header["space directions"], dtype=np.float64)
    spatial = [k for k, row in enumerate(directions) if np.isfinite(row).all()]
    other = [k for k in range(values.ndim) if k not in spatial]
    values = values.transpose(*spatial, *other)
    space = header["space"].lower()
    signs = [1.0 if word[0] in "ras" else -1.0 for word in _words(space)]
    affine = np.eye(4)
    affine[:3, :3] = directions[spatial].T * np.array(signs)[:, None]
    affine[:3, 3] = np.asarray(header["space origin"]) * signs
    return Reference.of(values, affine)


def _words(space: str) -> list[str]:
    return space.split("-")[:3] if "-" in space else list(space[:3])


def by_pydicom(files: list[Path], *, scaled: bool = True) -> Reference:
    """Return the pixels of slices where each of them says that it lies."""
    points, values = [], []
    for file in files:
        data = pydicom.dcmread(file)
        pixels = data.pixel_array.astype(np.float64)
        if scaled:
            pixels = pixels * float(data.get("RescaleSlope", 1)) + float(
                data.get("RescaleIntercept", 0)
            )
        axes = np.array(data.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        row, column = np.indices(pixels.shape).reshape(2, -1)
        lps = (
            np.array(data.ImagePositionPatient, dtype=np.float64)
            + column[:, None] * float(data.PixelSpacing[1]) * axes[0]
            + row[:, None] * float(data.PixelSpacing[0]) * axes[1]
        )
        points.append(lps * [-1, -1, 1])
        values.append(pixels.reshape(-1, 1))
    return Reference(np.concatenate(points), np.concatenate(values))


def by_highdicom(path: Path, **options: Any) -> Reference:
    """Return the volume that highdicom makes of the frames of a file."""
    import highdicom

    image = highdicom.imread(path)
    volume = image.get_volume(**options)
    # Its axes are (slice, row, column) in LPS.
    return Reference.of(np.asarray(volume.array), LPS_TO_RAS @ volume.affine)


def unplaced(values: NDArray[Any], spacing: tuple[float, float, float]) -> Reference:
    """Return (Z, Y, X) or (Z, Y, X, C) values of a format without an orientation.

    As documented: the first page lowest, rows to posterior, columns to left.
    """
    return Reference.of(values, SPL @ np.diag([*spacing, 1.0]))
