"""DICOM series: slices sorted by position, gaps refused, values rescaled, LPS turned into RAS."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._limits import check_memory
from napari_medgs.io.dicom.file import (
    Slice,
    attribute_text,
    is_dicom_file,
    no_library_warnings,
    open_header,
    read_header,
    read_info,
    sop_class,
)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNEVEN_REFUSED = 0.05
_UNEVEN_WARNED = 0.002
_TILT_WARNED = 0.5  # degrees


@dataclass(frozen=True)
class Series:
    """One series of a DICOM folder.

    Attributes
    ----------
    uid : str
        Its SeriesInstanceUID (GDCM appends to it where one UID has several stacks).
    description, modality : str
    files : tuple of str
    """

    uid: str
    description: str
    modality: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        text = " ".join(t for t in (self.modality, self.description) if t) or "no description"
        count = len(self.files)
        return f"{text}, {count} file{'s' * (count != 1)}, UID {self.uid}"


def is_dicom_folder(folder: Path) -> bool:
    """Tell whether a folder itself (not its subfolders) holds DICOM files."""
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return any(is_dicom_file(p) for p in files)


def list_series(folder: str | Path) -> list[Series]:
    """Return the image series of a folder, ordered by UID.

    Raises
    ------
    FileError
        When the folder is missing, or cannot be scanned because a file in it is damaged.
    """
    import SimpleITK as sitk

    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder.")
    find = sitk.ImageSeriesReader
    found = []
    with no_library_warnings():
        try:
            listed = {
                uid: find.GetGDCMSeriesFileNames(str(folder), uid)
                for uid in find.GetGDCMSeriesIDs(str(folder))
            }
        except RuntimeError as error:
            raise FileError(f"{folder}: a DICOM file in this folder is damaged.") from error
        for uid, files in listed.items():
            # Reports, plans and structure sets form series too, but cannot be read as images.
            readable = next((f for f in files if open_header(f) is not None), None)
            if readable is not None:
                header = read_header(readable)
                description = attribute_text(header, "SeriesDescription")
                modality = attribute_text(header, "Modality")
                found.append(Series(uid, description, modality, tuple(files)))
    return sorted(found, key=lambda s: s.uid)


def read_dicom(
    path: str | Path,
    *,
    series: str | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> Volume:
    """Read one series of a DICOM folder, or one DICOM file.

    Slices are sorted by their position along the slice normal, whatever their file names;
    the rescale slope and intercept of each slice are applied. A tilted gantry is kept exactly,
    as a sheared affine.

    Parameters
    ----------
    path : str or Path
        A folder of slices, or a file (several frames, or one slice).
    series : str, optional
        The series' UID, or its number (from 1) in the list that the error message shows.
    spacing : (z, y, x) in mm, optional
        Only for files without a position, then sorted by their instance number.

    Returns
    -------
    Volume
        One channel, in the rescaled integer type or float32; ``units`` is "HU" for CT.

    Raises
    ------
    FileError
        When nothing can be read, a file is damaged, or several series lie there and none is
        chosen.
    GeometryError
        When slices are missing, doubled, uneven, of several sizes or orientations, or have no
        position.
    ImageError
        When the files hold colors.
    MemoryEstimateError
        When the series would not fit into memory.
    """
    path = Path(path)
    chosen = _choose(path, series)
    with no_library_warnings():
        slices = [read_info(f) for f in chosen.files]
        _check_alike(path, slices)
        if len(slices) == 1 and slices[0].size[2] > 1:
            steps = slices[0].direction[:, 2] * slices[0].spacing[2]
            if spacing is not None:
                raise GeometryError(f"{path}: has its own geometry; do not give a spacing.")
            affine = _affine(slices[0], steps)
        else:
            slices, affine = _arrange(path, slices, spacing)
        data = _read_pixels(path, slices)
    return Volume.from_axes(
        data[None],
        affine,
        channel_names=(chosen.description or path.stem,),
        units="HU" if chosen.modality == "CT" else "",
        source={"kind": "dicom", "series": chosen.uid},
    )


def _choose(path: Path, series: str | None) -> Series:
    """Return the only series, or the wanted one."""
    if path.is_file():
        with no_library_warnings():
            readable = open_header(str(path)) is not None
            header = read_header(path)
        if not readable:
            raise FileError(f"{path}: cannot be read as a DICOM image; damaged or no image.")
        return Series(
            attribute_text(header, "SeriesInstanceUID"),
            attribute_text(header, "SeriesDescription"),
            attribute_text(header, "Modality"),
            (str(path),),
        )
    found = list_series(path)
    if not found:
        raise FileError(f"{path}: the folder holds no DICOM image that can be read.")
    listing = "; ".join(f"{n}: {s}" for n, s in enumerate(found, 1))
    if series is not None:
        match = [s for n, s in enumerate(found, 1) if series in (s.uid, str(n))]
        if not match:
            raise FileError(f"{path}: no series '{series}' here. There are: {listing}.")
        found = match + [s for s in found if s is not match[0]]
    elif len(found) > 1:
        raise FileError(f"{path}: holds {len(found)} series; choose one. {listing}.")
    _check_none_lost(path, found)
    return found[0]


def _check_none_lost(folder: Path, found: list[Series]) -> None:
    """Refuse a folder with a damaged slice, which the series finder would skip silently.

    Files of another kind than the first series (reports, plans) are not needed.
    """
    listed = {Path(f).name for series in found for f in series.files}
    kind = sop_class(found[0].files[0])
    for file in sorted(folder.iterdir()):
        if file.name in listed or not file.is_file() or not is_dicom_file(file):
            continue
        if kind and sop_class(file) == kind:
            raise FileError(f"{file}: truncated or damaged slice; replace or remove it.")


def _check_alike(path: Path, slices: list[Slice]) -> None:
    """Refuse colors, and slices of several sizes, spacings or orientations."""
    first = slices[0]
    if first.components > 1:
        raise ImageError(f"{path}: the DICOM images hold colors; give gray-scale images.")
    if len(slices) > 1 and any(s.size[2] > 1 for s in slices):
        raise GeometryError(
            f"{path}: the series has {len(slices)} files of several frames each; give one file."
        )
    for other in slices[1:]:
        if other.size != first.size or other.components != first.components:
            raise GeometryError(
                f"{path}: the series mixes slices of {first.size[:2]} and {other.size[:2]} pixels "
                f"({Path(other.path).name}); remove what does not belong to the stack."
            )
        if not np.allclose(other.direction[:, :2], first.direction[:, :2], atol=1e-3):
            raise GeometryError(
                f"{path}: the series mixes orientations ({Path(other.path).name}): a localizer or "
                "several stacks; remove what does not belong."
            )
        if not np.allclose(other.spacing[:2], first.spacing[:2], rtol=1e-3):
            raise GeometryError(
                f"{path}: the series mixes pixel spacings ({Path(other.path).name})."
            )


def _arrange(
    path: Path, slices: list[Slice], spacing: tuple[float, float, float] | None
) -> tuple[list[Slice], NDArray[np.float64]]:
    """Sort slices by position; return them with the affine (i, j, k, 1) to RAS mm."""
    if not all(s.placed for s in slices):
        if spacing is None:
            raise GeometryError(
                f"{path}: the DICOM files carry no position (ImagePositionPatient). Give the "
                "spacing in mm to stack them by their instance number."
            )
        ordered = sorted(slices, key=lambda s: (s.number, s.path))
        z, y, x = spacing
        return ordered, _LPS_TO_RAS @ np.diag([x, y, z, 1.0])
    if spacing is not None:
        raise GeometryError(f"{path}: has its own geometry; do not give a spacing.")
    normal = slices[0].normal
    places = np.array([s.origin @ normal for s in slices])
    order = np.argsort(places, kind="stable")
    ordered = [slices[k] for k in order]
    if len(ordered) == 1:
        return ordered, _affine(ordered[0], normal * ordered[0].thickness)
    gaps = np.diff(places[order])
    step = float(np.median(gaps))
    if gaps.min() <= 1e-3 * max(step, 1e-3):
        k = int(gaps.argmin())
        raise GeometryError(
            f"{path}: two slices have the same position ({Path(ordered[k].path).name} and "
            f"{Path(ordered[k + 1].path).name}): the series mixes several time points or echoes; "
            "separate them first."
        )
    off = np.abs(gaps - step) / step
    k = int(off.argmax())
    between = f"between {Path(ordered[k].path).name} and {Path(ordered[k + 1].path).name}"
    if off[k] > _UNEVEN_REFUSED:
        missing = int(np.sum(np.rint(gaps / step) - 1))
        if missing > 0:
            raise GeometryError(
                f"{path}: {missing} slice{'s are' if missing > 1 else ' is'} missing: the step "
                f"{between} is {gaps[k]:.4g} mm instead of {step:.4g} mm. Complete the series."
            )
        raise GeometryError(
            f"{path}: the slices are unevenly spaced: {gaps[k]:.4g} mm {between}, "
            f"{step:.4g} mm elsewhere. Resample the series to one spacing first."
        )
    if off[k] > _UNEVEN_WARNED:
        warnings.warn(
            f"{path}: slice steps vary by {100 * off[k]:.1f}% ({between}); the mean is used.",
            stacklevel=4,
        )
    steps = (ordered[-1].origin - ordered[0].origin) / (len(ordered) - 1)
    cosine = float(np.clip(steps @ normal / np.linalg.norm(steps), -1, 1))
    tilt = float(np.degrees(np.arccos(cosine)))
    if tilt > _TILT_WARNED:
        warnings.warn(
            f"{path}: the gantry was tilted by {tilt:.1f} degrees; positions are kept "
            "exactly, by a sheared affine.",
            stacklevel=4,
        )
    return ordered, _affine(ordered[0], steps)


def _affine(first: Slice, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine (i, j, k, 1) to RAS mm from a first slice and the step to the next."""
    lps = np.eye(4)
    lps[:3, 0] = first.direction[:, 0] * first.spacing[0]
    lps[:3, 1] = first.direction[:, 1] * first.spacing[1]
    lps[:3, 2] = step
    lps[:3, 3] = first.origin
    return _LPS_TO_RAS @ lps + 0.0


def _read_pixels(path: Path, slices: list[Slice]) -> NDArray[Any]:
    """Read all slices as (i, j, k), in one type that holds each slice's rescaled values."""
    import SimpleITK as sitk

    width, height, frames = slices[0].size
    depth = len(slices) if frames == 1 else frames
    check_memory(path, 3 * width * height * depth * max(s.itemsize for s in slices))
    stack: NDArray[Any] | None = None
    for k, place in enumerate(slices):
        try:
            image = sitk.ReadImage(place.path, imageIO="GDCMImageIO")
        except RuntimeError as error:
            raise FileError(f"{place.path}: truncated or damaged DICOM file.") from error
        array = sitk.GetArrayViewFromImage(image).reshape(frames, height, width)
        kind = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype
        if stack is None:
            stack = np.empty((depth, height, width), kind)
        elif np.result_type(stack.dtype, kind) != stack.dtype:
            # Slices may rescale differently (PET does): one type has to hold them all.
            stack = stack.astype(np.result_type(stack.dtype, kind))
        stack[k : k + frames] = array
    if stack is None:
        raise FileError(f"{path}: no slice was found.")
    return stack.transpose(2, 1, 0)
