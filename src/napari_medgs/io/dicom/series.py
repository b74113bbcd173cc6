"""DICOM series: what lies in a folder, a study or a disc, and one of it as a volume."""

from __future__ import annotations

import filecmp
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError
from napari_medgs.io.dicom.file import files_below, is_dicom_file
from napari_medgs.io.dicom.frames import Frame, frames_of
from napari_medgs.io.dicom.geometry import arrange
from napari_medgs.io.dicom.header import (
    DIRECTORY,
    DOSE,
    LABEL_MAP,
    SEGMENTATION,
    STRUCTURE_SET,
    class_name,
    class_uid,
    integer,
    number,
    read_header,
    text,
)
from napari_medgs.io.dicom.pixels import read_pixels
from napari_medgs.io.dicom.summary import FoundSeries, Series, describe, describe_contours
from napari_medgs.io.dicom.volumes import split_volumes


def is_dicom_folder(folder: Path) -> bool:
    """Tell whether a folder itself (not its subfolders) holds DICOM files."""
    return any(_is_slice(p) for p in folder.iterdir())


def is_dicom_tree(folder: Path) -> bool:
    """Tell whether a folder or one below it holds DICOM files, as a study or a disc does."""
    return any(_is_slice(p) for p in files_below(folder))


def _is_slice(file: Path) -> bool:
    """Tell whether a file is DICOM, and neither hidden nor the directory of a disc."""
    hidden = file.name.startswith(".") or file.name.upper() == "DICOMDIR"
    return not hidden and file.is_file() and is_dicom_file(file)


def has_dicom(path: Path) -> bool:
    """Tell whether a path is a DICOM file or a folder with some in it or below it."""
    if not path.is_dir():
        return path.is_file() and is_dicom_file(path)
    return is_dicom_folder(path) or is_dicom_tree(path)


def list_series(folder: str | Path) -> list[Series]:
    """Return the image series in a folder, ordered by UID.

    Folders below are searched where the folder itself has no DICOM file.

    Parameters
    ----------
    folder : str or Path
        A folder of slices, a study, a disc, its DICOMDIR, or a file.

    Returns
    -------
    list of Series
        Without names of patients.

    Raises
    ------
    FileError
        When the folder is missing, or a file is no DICOM image.
    """
    folder = Path(folder)
    if folder.is_file() and folder.name.upper() == "DICOMDIR":
        folder = folder.parent
    elif folder.is_file():
        from napari_medgs.io.dicom.structures import is_structure_set

        if is_structure_set(folder):
            return [describe_contours(folder)]
        return [_single(folder).series]
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder.")
    return [found.series for found in _scan(folder)[0]]


def read_dicom(
    path: str | Path,
    *,
    series: str | None = None,
    volume: int | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> Volume:
    """Read one volume of a DICOM folder, a study, or a file.

    Slices are sorted by their position along the slice normal, whatever their file names, and so
    are the frames of a file. The rescale slope and intercept of each are applied. A tilted gantry
    is kept exactly, as a sheared affine.

    Parameters
    ----------
    path : str or Path
        A folder with slices in it or in folders below it, a DICOMDIR, or a file.
    series : str, optional
        The series' UID, or its number (from 1) in the list that the error message shows. Where a
        series has several volumes (time points, echoes), the volume's number follows after a
        point: ``"2.1"``.
    volume : int, optional
        Which volume (from 1) of a series that has several; in place of the number after the point.
    spacing : (z, y, x) in mm, optional
        Only for files without a position or a pixel spacing. Without positions they are sorted
        by their instance number.

    Returns
    -------
    Volume
        One channel, in the rescaled integer type or float32; ``units`` is "HU" for CT, and "Gy"
        for a dose in that unit.

    Raises
    ------
    FileError
        When nothing can be read, a file is damaged, or several series or volumes lie there and
        none is chosen.
    GeometryError
        When slices are missing, doubled, uneven, shifted, of several sizes or orientations, or
        have no position.
    ImageError
        When the files hold colors.
    LabelError
        When the segments of a segmentation overlap.
    MemoryEstimateError
        When the series would not fit into memory.

    References
    ----------
    DICOM PS3.3, C.7.6.2 (Image Plane) and C.7.6.16 (Multi-frame Functional Groups).
    """
    path = Path(path)
    from napari_medgs.io.dicom.structures import is_structure_set, read_structures

    if is_structure_set(path):
        labels, grid, _ = read_structures(path)
        return Volume(labels[None], grid, (path.stem,))
    # Where an image and masks of it lie in one folder, the image is meant.
    found, frames, number = choose_frames(path, series, volume, masks=False)
    header = next(iter(found.headers.values()))
    kind = class_uid(header)
    if kind in (SEGMENTATION, LABEL_MAP):
        from napari_medgs.io.dicom.segmentation import segmentation_volume

        return segmentation_volume(found.series.files[0])
    record: dict[str, Any] = {"kind": "dicom", "series": found.series.uid}
    if number is not None:
        record["volume"] = number
    ordered, affine = arrange(path, frames, spacing)
    if any(frame.origin is None or frame.axes is None for frame in ordered):
        record["assumed"] = True
    _warn_of_values(path, header, ordered)
    data = read_pixels(path, ordered)
    hounsfield = found.series.modality == "CT" and ordered[0].rescaled_to in ("", "HU")
    units = "HU" if hounsfield else ordered[0].units
    if ordered[0].maps > 1:
        warnings.warn(
            f"{path}: has {ordered[0].maps} maps to real-world values; the first is used"
            f"{f' ({units})' if units else ''}.",
            stacklevel=2,
        )
    if kind == DOSE:
        data, units = _scale_dose(path, header, data)
    return Volume.from_axes(
        data[None],
        affine,
        channel_names=(found.series.description or path.stem,),
        units=units,
        source=record,
    )


def choose_frames(
    path: Path, series: str | None = None, volume: int | None = None, *, masks: bool = True
) -> tuple[FoundSeries, list[Frame], int | None]:
    """Return one series of a folder, a study or a file, and the frames of one volume of it.

    Parameters
    ----------
    path : Path
    series, volume
        See :func:`read_dicom`.
    masks : bool
        Whether segmentations count as series to choose from, too.

    Returns
    -------
    found : FoundSeries
    frames : list of Frame
        Not sorted; none for a segmentation.
    number : int or None
        Which volume they are; None where the series has one.

    Raises
    ------
    MedGSError
        As :func:`read_dicom`.
    """
    wanted, number = series or "", ""
    if _is_number(wanted):
        wanted, _, number = wanted.partition(".")
    if volume is not None:
        if number not in ("", str(volume)):
            raise FileError(
                f"{path}: the series '{series}' names volume {number}, not {volume}; choose one."
            )
        number = str(volume)
    found = _choose(path, wanted, masks)
    if _is_mask(found):
        return found, [], None
    frames = [f for p, h in found.headers.items() for f in frames_of(p, h)]
    frames = _choose_volume(path, frames, number)
    return found, frames, int(number) if found.series.volumes else None


def _is_mask(found: FoundSeries) -> bool:
    return class_uid(next(iter(found.headers.values()))) in (SEGMENTATION, LABEL_MAP)


def _is_number(series: str) -> bool:
    """Tell a choice such as "2" or "2.1" from a UID."""
    parts = series.split(".")
    return len(parts) <= 2 and all(p.isdigit() and len(p) < 6 for p in parts)


def _scale_dose(path: Path, header: Any, data: Any) -> tuple[Any, str]:
    """Return a dose in its unit (PS3.3 C.8.8.3: DoseGridScaling)."""
    scaling = number(header, "DoseGridScaling")
    if scaling is None:
        raise FileError(f"{path}: a dose without DoseGridScaling; its values have no meaning.")
    scaled = (data.astype(np.float64) * scaling).astype(np.float32)
    return scaled, "Gy" if text(header, "DoseUnits") == "GY" else ""


def _choose(path: Path, wanted: str, masks: bool) -> FoundSeries:
    """Return the only series, or the wanted one."""
    if path.is_file() and path.name.upper() != "DICOMDIR":
        return _single(path)
    folder = path.parent if path.is_file() else path
    found, damaged = _scan(folder)
    if not found:
        raise FileError(f"{path}: the folder holds no DICOM image that can be read.")
    listing = "; ".join(f"{n}: {f.series}" for n, f in enumerate(found, 1))
    chosen = found if masks else [f for f in found if not _is_mask(f)] or found
    if wanted:
        chosen = [f for n, f in enumerate(found, 1) if wanted in (f.series.uid, str(n))]
        if not chosen:
            raise FileError(f"{path}: no series '{wanted}' here. There are: {listing}.")
    elif len(chosen) > 1:
        raise FileError(f"{path}: holds {len(found)} series; choose one. {listing}.")
    header = next(iter(chosen[0].headers.values()))
    folders = {Path(p).parent for p in chosen[0].headers}
    for file, kind in damaged:
        # A damaged slice must not be left out in silence; reports and plans beside may be.
        if file.parent in folders and kind in ("", class_uid(header)):
            raise FileError(f"{file}: truncated or damaged slice; replace or remove it.")
    return chosen[0]


def _single(path: Path) -> FoundSeries:
    """Return a file as a series of its own."""
    header = read_header(path)
    if header is None:
        raise FileError(f"{path}: cannot be read as a DICOM image; damaged or no image.")
    kind = class_uid(header)
    if kind == STRUCTURE_SET:
        raise FileError(
            f"{path}: holds contours (RT Structure Set), not an image; give its image series."
        )
    if kind == DIRECTORY:
        raise FileError(f"{path}: is a directory of files; give the folder it lies in.")
    if not _is_image(header):
        raise FileError(
            f"{path}: cannot be read as a DICOM image; it is '{class_name(header)}' or damaged."
        )
    return describe({str(path): header})


def _is_image(header: Any) -> bool:
    return text(header, "Rows") != "" and text(header, "Columns") != ""


def _scan(folder: Path) -> tuple[list[FoundSeries], list[tuple[Path, str]]]:
    """Return the series below a folder, and damaged files with their SOP class ("" if unknown)."""
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    damaged: list[tuple[Path, str]] = []
    files = [f for f in sorted(folder.iterdir()) if _is_slice(f)]
    for file in files or (f for f in files_below(folder) if _is_slice(f)):
        header = read_header(file)
        if header is None:
            damaged.append((file, ""))
        elif _is_image(header):
            uid = text(header, "SeriesInstanceUID")
            kind = class_uid(header)
            # Each segmentation and dose is an object of its own, whatever series it says.
            alone = kind in (SEGMENTATION, LABEL_MAP, DOSE)
            # Anonymizers give the series of two patients one UID.
            study = text(header, "StudyInstanceUID")
            groups[f"{uid}\n{file if alone else study}"][str(file)] = header
        else:
            damaged.append((file, class_uid(header)))
    images = {class_uid(h) for group in groups.values() for h in group.values()}
    damaged = [(file, kind) for file, kind in damaged if not kind or kind in images]
    found = [describe(_without_copies(folder, group)) for _, group in sorted(groups.items())]
    return found, damaged


def _without_copies(folder: Path, group: dict[str, Any]) -> dict[str, Any]:
    """Leave out files that equal another one byte by byte."""
    kept: dict[str, Any] = {}
    known: dict[str, list[str]] = defaultdict(list)
    copies = []
    for file, header in group.items():
        same = known[text(header, "SOPInstanceUID")]
        if any(filecmp.cmp(file, other, shallow=False) for other in same):
            copies.append(file)
        else:
            same.append(file)
            kept[file] = header
    if copies:
        warnings.warn(
            f"{folder}: {len(copies)} of {len(group)} files of a series are copies of others "
            f"({Path(copies[0]).name}); each image is read once.",
            stacklevel=4,
        )
    return kept


def _warn_of_values(path: Path, header: Any, frames: list[Frame]) -> None:
    """Warn where a header leaves doubt about what the values are."""
    bits = integer(header, "BitsStored")
    if bits and integer(header, "HighBit", bits - 1) != bits - 1:
        warnings.warn(
            f"{path}: says that its {bits} bits end at bit {integer(header, 'HighBit')} "
            "(HighBit); they are taken as stored, from bit 0.",
            stacklevel=3,
        )
    plain = [f for f in frames if (f.slope, f.intercept) == (1, 0) and f.table is None]
    offset = [f for f in frames if f.intercept != 0]
    if plain and offset:
        warnings.warn(
            f"{path}: {plain[0].name} has no rescaling, and {offset[0].name} has (intercept "
            f"{offset[0].intercept:g}); check whether they belong together.",
            stacklevel=3,
        )


def _choose_volume(path: Path, frames: list[Frame], wanted: str) -> list[Frame]:
    """Return the frames of the only volume, or of the wanted one."""
    volumes = split_volumes(frames)
    if len(volumes) == 1:
        if wanted not in ("", "1"):
            raise FileError(f"{path}: the series has one volume; there is no volume {wanted}.")
        return frames
    names = list(volumes)
    shown = [f"{n}: {name}" for n, name in enumerate(names, 1)]
    listing = "; ".join(shown if len(shown) <= 12 else [*shown[:10], "..", shown[-1]])
    if not wanted:
        raise FileError(
            f"{path}: holds {len(names)} volumes at one place; choose one. {listing}. Give its "
            "number, as in --volume 2, or after the series' number, as in --series 1.2."
        )
    if not wanted.isdigit() or not 1 <= int(wanted) <= len(names):
        raise FileError(f"{path}: no volume {wanted} here. There are: {listing}.")
    return volumes[names[int(wanted) - 1]]
