"""Frames of DICOM files: place, rescaling, and what tells volumes apart.

A file of one slice has one frame. Enhanced files have several, whose attributes are in the
functional groups (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._limits import check_claim
from napari_medgs.io.dicom.header import (
    class_uid,
    has_content,
    integer,
    items,
    number,
    numbers,
    read_code,
    text,
    transfer_syntax,
    value,
)
from napari_medgs.io.dicom.nuclear import nuclear_frames
from napari_medgs.io.dicom.transforms import modality_table, real_world_line
from napari_medgs.io.dicom.vendor import vendor_keys

_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_TIMED = {
    "1.2.840.10008.5.1.4.1.1.3.1": "ultrasound",
    "1.2.840.10008.5.1.4.1.1.3": "ultrasound",
    "1.2.840.10008.5.1.4.1.1.12.1": "X-ray angiography",
    "1.2.840.10008.5.1.4.1.1.12.2": "X-ray fluoroscopy",
    "1.2.840.10008.5.1.4.1.1.12.1.1": "X-ray angiography",
    "1.2.840.10008.5.1.4.1.1.12.2.1": "X-ray fluoroscopy",
}
_ORTHOGONAL = 1e-3

VOLUME_KEYS = (
    ("MRDiffusionSequence", "DiffusionBValue", "b-value"),
    ("", "DiffusionBValue", "b-value"),
    ("MREchoSequence", "EffectiveEchoTime", "echo time"),
    ("", "EchoTime", "echo time"),
    ("", "EchoNumbers", "echo"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent", "component"),
    ("MRImageFrameTypeSequence", "FrameType", "type"),
    ("CTImageFrameTypeSequence", "FrameType", "type"),
    ("PETFrameTypeSequence", "FrameType", "type"),
    ("", "ImageType", "type"),
    ("FrameContentSequence", "StackID", "stack"),
    ("FrameContentSequence", "TemporalPositionIndex", "time point"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset", "time offset"),
    ("", "TemporalPositionIdentifier", "time point"),
    ("MRDiffusionSequence", "DiffusionGradientOrientation", "gradient"),
    ("", "DiffusionGradientOrientation", "gradient"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "trigger delay"),
    ("", "TriggerTime", "trigger time"),
    ("", "AcquisitionNumber", "acquisition"),
    ("FrameContentSequence", "FrameAcquisitionNumber", "acquisition"),
    ("FrameContentSequence", "FrameReferenceDateTime", "time"),
    ("", "FrameReferenceTime", "time"),
    ("", "AcquisitionTime", "acquisition time"),
)
"""Attributes that tell volumes at one place apart: sequence, keyword, and name in a list."""


@dataclass(frozen=True)
class Frame:
    """One frame of a file, or the whole file of one slice.

    Attributes
    ----------
    path : str
    index, count : int
        Which frame of how many in the file.
    shape : (rows, columns)
    spacing : (2,) ndarray or None
        Millimeters between rows and between columns.
    origin : (3,) ndarray or None
        Center of the first pixel, LPS millimeters.
    axes : (2, 3) ndarray or None
        Unit vectors along a row (to the next column) and along a column, LPS.
    thickness : float
        Distance to the next slice that a lone slice states, or its thickness; 0 if neither.
    number : int
        Instance number, then the stored order.
    slope, intercept : float
        Of the rescaling, or where the file has none, of the map to real-world values.
    table, first
        Values of a Modality LUT in place of these, and the stored value of its first; or None.
    units : str
        Code of the unit of real-world values, empty where they are not used.
    rescaled_to : str
        What rescaled values are, as the file says: HU, US (unspecified) or another code.
    maps : int
        How many maps to real-world values there are, of which the first is used.
    detector_spacing : (2,) ndarray or None
        ImagerPixelSpacing: pixel sizes at the detector, not in the patient.
    keys : dict
        Values of :data:`VOLUME_KEYS`.
    """

    path: str
    index: int
    count: int
    shape: tuple[int, int]
    spacing: NDArray[np.float64] | None
    origin: NDArray[np.float64] | None
    axes: NDArray[np.float64] | None
    thickness: float
    number: int
    slope: float = 1.0
    intercept: float = 0.0
    table: NDArray[Any] | None = None
    first: int = 0
    units: str = ""
    rescaled_to: str = ""
    maps: int = 0
    detector_spacing: NDArray[np.float64] | None = None
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What to call the frame in messages."""
        file = Path(self.path).name
        return file if self.count == 1 else f"frame {self.index + 1} of {file}"

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice, LPS."""
        if self.axes is None:
            return np.array([0.0, 0.0, 1.0])
        return np.cross(self.axes[0], self.axes[1])


def frames_of(path: str | Path, header: Any) -> list[Frame]:
    """Return the frames of an image file in stored order.

    Parameters
    ----------
    path : str or Path
    header : pydicom.Dataset
        The file's data set, without pixels.

    Returns
    -------
    list of Frame

    Raises
    ------
    FileError
        When the header contradicts itself or the file's size.
    ImageError
        When the pixels are colors.
    GeometryError
        When the frames are time points of one plane, tiles, or have impossible axes.

    References
    ----------
    DICOM PS3.3, C.7.6.2 (Image Plane) and C.7.6.16 (Multi-frame Functional Groups).
    """
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    count = max(integer(header, "NumberOfFrames", 1), 1)
    _check_pixels(path, header, rows, columns, count)
    shared = next(iter(items(header, "SharedFunctionalGroupsSequence")), None)
    each = items(header, "PerFrameFunctionalGroupsSequence")
    if each and len(each) != count:
        raise FileError(
            f"{path}: damaged: it has {count} frames and describes {len(each)} of them."
        )
    _check_kind(path, header, count, bool(each or shared))
    nuclear = nuclear_frames(path, header, count) if not each else None
    origins = _implied_origins(header, count) if not each and nuclear is None else None
    frames = []
    for k in range(count):
        groups = [g for g in (each[k] if each else None, shared) if g is not None]
        frame = _frame(str(path), k, count, (rows, columns), header, groups)
        if origins is not None:
            frame = replace(frame, origin=origins[k])
        elif nuclear is not None:
            keys = {**frame.keys, **nuclear[1][k]}
            frame = replace(frame, origin=nuclear[0][k], keys=keys)
        frames.append(frame)
    if all((f.slope, f.intercept) == (1, 0) and f.table is None for f in frames):
        # No rescaling says anything: the values are what the maps to real-world ones make them.
        each = each or [header] * count
        return [
            _mapped(frame, next((m for g in (e, shared, header) if (m := _maps(g))), []))
            for frame, e in zip(frames, each, strict=True)
        ]
    return frames


def _maps(group: Any) -> list[Any]:
    return [] if group is None else items(group, "RealWorldValueMappingSequence")


def _mapped(frame: Frame, maps: list[Any]) -> Frame:
    """Return a frame with the first of its maps to real-world values."""
    if not maps:
        return frame
    slope, intercept = real_world_line(frame.path, maps[0])
    code = read_code(maps[0], "MeasurementUnitsCodeSequence")
    units = "" if code is None or code[0] == "1" else code[0]
    return replace(frame, slope=slope, intercept=intercept, units=units, maps=len(maps))


def _frame(
    path: str, index: int, count: int, shape: tuple[int, int], header: Any, groups: list[Any]
) -> Frame:
    def source(sequence: str, keyword: str) -> Any:
        """Return the data set that holds an attribute: a functional group, else the file."""
        for group in groups:
            for item in items(group, sequence):
                if value(item, keyword) is not None:
                    return item
        return header

    measures = source("PixelMeasuresSequence", "PixelSpacing")
    spacing = numbers(measures, "PixelSpacing", 2)
    if spacing is not None and not (spacing > 0).all():
        spacing = None
    place = source("PlanePositionSequence", "ImagePositionPatient")
    orientation = source("PlaneOrientationSequence", "ImageOrientationPatient")
    detector = next(iter(items(header, "DetectorInformationSequence")), None)
    origin = numbers(place, "ImagePositionPatient", 3)
    axes = numbers(orientation, "ImageOrientationPatient", 6)
    if axes is None and detector is not None:
        axes = numbers(detector, "ImageOrientationPatient", 6)
    # Several frames of a file without functional groups do not share the file's one position.
    if count > 1 and not groups:
        origin = None
    thick = source("PixelMeasuresSequence", "SliceThickness")
    values = source("PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = (_rescaling(path, values, k) for k in ("RescaleSlope", "RescaleIntercept"))
    table, first = modality_table(path, header)
    between = source("PixelMeasuresSequence", "SpacingBetweenSlices")
    distance = number(between, "SpacingBetweenSlices") or number(thick, "SliceThickness") or 0.0
    return Frame(
        path=path,
        index=index,
        count=count,
        shape=shape,
        spacing=spacing,
        origin=origin,
        axes=_unit_axes(path, axes),
        thickness=abs(distance),
        number=integer(header, "InstanceNumber"),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        rescaled_to=text(values, "RescaleType"),
        table=table,
        first=first,
        detector_spacing=numbers(header, "ImagerPixelSpacing", 2),
        keys=_volume_keys(header, groups),
    )


def _rescaling(path: str, values: Any, keyword: str) -> float | None:
    """Return a number by which stored values become real ones; refused where it cannot be one."""
    found = number(values, keyword)
    if found is None and has_content(values, keyword):
        raise FileError(
            f"{path}: its {keyword} is no finite number; correct the file, or convert it with a "
            "tool that you trust."
        )
    if found == 0 and keyword == "RescaleSlope":
        raise FileError(
            f"{path}: its RescaleSlope is 0, by which all values would be equal; correct the file."
        )
    return found


def _unit_axes(path: str, cosines: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return row and column direction; None where the file says none, refused if impossible."""
    if cosines is None or not cosines.any():
        return None
    axes = cosines.reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if np.abs(lengths - 1).max() > _ORTHOGONAL or abs(axes[0] @ axes[1]) > _ORTHOGONAL:
        raise GeometryError(
            f"{path}: its ImageOrientationPatient is not two perpendicular unit vectors; correct "
            "the file, or convert it with a tool that you trust."
        )
    return axes


def _volume_keys(header: Any, groups: list[Any]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for sequence, keyword, name in VOLUME_KEYS:
        if sequence:
            found = next(
                (
                    shown
                    for g in groups
                    for i in items(g, sequence)
                    if (shown := _shown(i, keyword))
                ),
                "",
            )
        else:
            found = _shown(header, keyword)
        if found and name not in keys:
            keys[name] = found
    return {**vendor_keys(header), **keys}


def _shown(data: Any, keyword: str) -> str:
    """Return an element as a list of volumes shows it: 20 for 20.0."""
    single = number(data, keyword)
    return text(data, keyword) if single is None else f"{single:g}"


def _implied_origins(header: Any, count: int) -> list[NDArray[np.float64]] | None:
    """Return places of frames that one position and offsets describe: dose grids."""
    origin = numbers(header, "ImagePositionPatient", 3)
    axes = numbers(header, "ImageOrientationPatient", 6)
    offsets = numbers(header, "GridFrameOffsetVector", count)
    if origin is None or axes is None or offsets is None or count == 1:
        return None
    normal = np.cross(axes[:3], axes[3:])
    # PS3.3 C.8.8.3.2: relative offsets begin with 0, others are patient coordinates of z.
    if offsets[0] != 0:
        offsets = (offsets - offsets[0]) * (1.0 if normal[2] >= 0 else -1.0)
    return [origin + offset * normal for offset in offsets]


def _check_kind(path: str | Path, header: Any, count: int, grouped: bool) -> None:
    """Refuse images whose frames are no slices of a volume."""
    timed = _TIMED.get(class_uid(header))
    pointer = text(header, "FrameIncrementPointer")
    by_time = "0018,1063" in pointer or "0018,1065" in pointer or value(header, "CineRate")
    if count > 1 and not grouped and (timed or by_time):
        raise GeometryError(
            f"{path}: a {timed or 'cine'} sequence of {count} frames in time, not slices of a "
            "volume; export one frame as an image first."
        )
    if "MOSAIC" in text(header, "ImageType").upper():
        raise GeometryError(
            f"{path}: a Siemens mosaic, which holds all slices of a volume in one picture; "
            "convert it to NIfTI first (dcm2niix does)."
        )
    if value(header, "TotalPixelMatrixColumns") is not None and integer(
        header, "TotalPixelMatrixColumns"
    ) > integer(header, "Columns"):
        raise GeometryError(f"{path}: tiles of a microscopy slide, not slices of a volume.")


def _check_pixels(path: str | Path, header: Any, rows: int, columns: int, count: int) -> None:
    """Refuse what is no gray-value image, or promises more than the file can hold."""
    samples, bits = integer(header, "SamplesPerPixel", 1), integer(header, "BitsAllocated", 8)
    if rows < 1 or columns < 1 or samples not in (1, 3, 4) or not 1 <= bits <= 64:
        raise FileError(f"{path}: damaged: its header describes no image.")
    colors = text(header, "PhotometricInterpretation")
    if samples > 1 or (colors and not colors.startswith("MONOCHROME")):
        raise ImageError(
            f"{path}: holds colors ({colors or f'{samples} samples per pixel'}); gray values are "
            "needed."
        )
    plain = transfer_syntax(header) in _UNCOMPRESSED
    # One bit per pixel at the least, whatever the compression.
    claimed = rows * columns * count * samples * (bits if plain else 1) // 8
    check_claim(path, claimed, Path(path).stat().st_size, deflated=not plain)
