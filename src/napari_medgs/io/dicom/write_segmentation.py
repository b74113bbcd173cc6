"""Masks as DICOM segmentations (SEG) on the series of their image, by highdicom."""

from __future__ import annotations

import colorsys
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._optional import require
from napari_medgs.errors import FileError, GeometryError, LabelError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.dicom.frames import Frame
from napari_medgs.io.dicom.header import items, number, quiet_pydicom, text
from napari_medgs.io.dicom.private import set_label_value, set_stack
from napari_medgs.io.dicom.segments import Code, DicomSegment
from napari_medgs.io.dicom.source import SourceSeries

TISSUE: Code = ("85756007", "SCT", "Tissue")
"""What a segment is called where nothing else is known, as in 3D Slicer."""

_MOST_SEGMENTS = 65535
_LONGEST_NAME = 64
_PATIENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber",
)  # fmt: skip
"""Elements that a file may lack or leave empty, and every object made of it repeats."""


def write_segmentation(
    path: str | Path,
    labels: NDArray[Any],
    source: SourceSeries,
    segments: Sequence[DicomSegment],
) -> Path:
    """Write labels as a DICOM segmentation with one binary segment per label.

    Parameters
    ----------
    path : str or Path
    labels : (Z, Y, X) ndarray of integers
        On the grid of the series; none negative.
    source : SourceSeries
        The series that the mask was drawn on, whose patient and study the file repeats.
    segments : sequence of DicomSegment
        Names, colors and codes of all labels that occur, by value; those without voxels are kept
        as empty segments.

    Returns
    -------
    Path

    Raises
    ------
    LabelError
        When there is no segment, or more than the format holds.
    FileError
        When the series lacks identifiers, or the file cannot be written.
    MissingPackageError
        Without highdicom.

    Notes
    -----
    Segments are numbered 1, 2, ... as the standard asks; label values that differ are kept in a
    private element. The algorithm type, which the standard demands, is SEMIAUTOMATIC.

    References
    ----------
    DICOM PS3.3, C.8.20 (Segmentation).
    """
    path = Path(path)
    source.check_reference("a DICOM segmentation")
    if not segments:
        raise LabelError(f"{path}: the mask is empty; a DICOM segmentation needs a segment.")
    if len(segments) > _MOST_SEGMENTS:
        raise LabelError(f"{path}: a DICOM segmentation holds {_MOST_SEGMENTS} segments at most.")
    dataset = _dataset(path, source.stacked(labels), source, segments)
    for item, segment in zip(dataset.SegmentSequence, segments, strict=True):
        if segment.value != item.SegmentNumber:
            set_label_value(item, segment.value)
    lps = source.to_lps()
    set_stack(dataset, lps[:3, 3], lps[:3, 2], len(source.frames))
    with atomic_path(path) as temporary, quiet_pydicom():
        dataset.save_as(temporary, enforce_file_format=True)
    return path


@contextmanager
def _quiet_highdicom() -> Iterator[None]:
    """Keep off the terminal what highdicom logs about empty segments."""
    logger = logging.getLogger("highdicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _dataset(
    path: Path, stack: NDArray[Any], source: SourceSeries, segments: Sequence[DicomSegment]
) -> Any:
    require("highdicom", feature="writing a DICOM segmentation")
    import highdicom
    from highdicom.seg import Segmentation

    from napari_medgs import __version__

    values = np.array([segment.value for segment in segments])
    order = np.argsort(values)
    numbers = np.zeros(stack.shape, np.uint16)
    inside = stack != 0
    numbers[inside] = (order + 1)[np.searchsorted(values[order], stack[inside])]
    first = source.frames[0]
    described = [_description(k, s) for k, s in enumerate(segments, 1)]
    with quiet_pydicom(), _quiet_highdicom():
        try:
            return Segmentation(
                source_images=source_images(source),
                pixel_array=numbers,
                segmentation_type="BINARY",
                segment_descriptions=described,
                series_instance_uid=highdicom.UID(),
                series_number=series_number(source),
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="napari-medgs",
                manufacturer_model_name="napari-medgs",
                software_versions=__version__,
                device_serial_number="0",
                content_description="Segmentation",
                content_label="SEGMENTATION",
                specific_character_set="ISO_IR 192",
                series_description=_description_of(source),
                pixel_measures=_measures(source),
                plane_orientation=highdicom.PlaneOrientationSequence(
                    "PATIENT", _axes(first).ravel().tolist()
                ),
                plane_positions=[
                    highdicom.PlanePositionSequence("PATIENT", _origin(f).tolist())
                    for f in source.frames
                ],
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise FileError(
                f"{path}: no DICOM segmentation can be made for the series {source.path} "
                f"({error}); write .nii.gz, .nrrd or .seg.nrrd."
            ) from error


def source_images(source: SourceSeries) -> list[Any]:
    """Return the headers of a series in its order, with what must be there, if empty."""
    from pydicom import Dataset

    first = source.frames[0]
    found = []
    for path in dict.fromkeys(frame.path for frame in source.frames):
        header = source.headers[path].copy()
        for keyword in _PATIENT:
            if keyword not in header:
                setattr(header, keyword, "")
        shared = items(header, "SharedFunctionalGroupsSequence")
        if shared and first.count > 1:
            # Frames that were checked to be parallel may still say so one by one.
            common = shared[0].copy()
            orientation = Dataset()
            orientation.ImageOrientationPatient = _axes(first).ravel().tolist()
            common.PlaneOrientationSequence = [orientation]
            header.SharedFunctionalGroupsSequence = [common]
        found.append(header)
    return found


def _description(number: int, segment: DicomSegment) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    from napari_medgs import __version__

    algorithm = AlgorithmIdentificationSequence(
        "napari-medgs", codes.DCM.ArtificialIntelligence, __version__
    )
    described = SegmentDescription(
        segment_number=number,
        segment_label=short_name(segment.name),
        segmented_property_category=CodedConcept(*(segment.category or TISSUE)),
        segmented_property_type=CodedConcept(*(segment.kind or TISSUE)),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=algorithm,
        display_color=_cielab(segment.color or default_color(number)),
    )
    # highdicom asks for the family of the algorithm; the standard does not, and a mask may be
    # anybody's. The name, which it does ask for, is kept.
    del described.SegmentationAlgorithmIdentificationSequence
    described.SegmentAlgorithmName = "napari-medgs"
    return described


def short_name(name: str) -> str:
    """Return a name in the 64 characters that DICOM has for it; a longer one is cut, and said."""
    line = " ".join(name.replace("\\", "/").split())
    if len(line) > _LONGEST_NAME:
        warnings.warn(
            f"the name '{line}' is cut to the {_LONGEST_NAME} characters that DICOM allows.",
            stacklevel=2,
        )
    return line[:_LONGEST_NAME]


def default_color(number: int) -> tuple[float, float, float]:
    """Return a color for a segment that has none: hues far apart for successive numbers."""
    return colorsys.hsv_to_rgb((number * 0.618) % 1.0, 0.65, 0.9)


def _cielab(color: tuple[float, float, float]) -> Any:
    from highdicom.color import CIELabColor

    red, green, blue = np.clip(np.asarray(color, dtype=np.float64) * 255, 0, 255).tolist()
    return CIELabColor.from_rgb(red, green, blue)


def _measures(source: SourceSeries) -> Any:
    import highdicom

    first = source.frames[0]
    step = _step(source)
    thickness = number(source.first, "SliceThickness") or step
    if first.spacing is None:
        raise GeometryError(f"{source.path}: the series has no pixel spacing.")
    return highdicom.PixelMeasuresSequence(first.spacing.tolist(), abs(thickness), step)


def _step(source: SourceSeries) -> float:
    """Return the distance between slices along their normal."""
    if len(source.frames) < 2:
        return source.frames[0].thickness or 1.0
    low, high = _origin(source.frames[0]), _origin(source.frames[-1])
    return float((high - low) @ source.frames[0].normal) / (len(source.frames) - 1)


def _origin(frame: Frame) -> NDArray[np.float64]:
    if frame.origin is None:
        raise GeometryError(f"{frame.path}: the series has no position (ImagePositionPatient).")
    return frame.origin


def _axes(frame: Frame) -> NDArray[np.float64]:
    if frame.axes is None:
        raise GeometryError(f"{frame.path}: the series has no orientation.")
    return frame.axes


def series_number(source: SourceSeries) -> int:
    """Return a number that sorts the mask behind its series."""
    own = number(source.first, "SeriesNumber")
    return 1 if own is None or not 0 <= own < 1e6 else int(own) * 100 + 1


def _description_of(source: SourceSeries) -> str:
    own = text(source.first, "SeriesDescription")
    return f"Segmentation of {own}"[:64] if own else "Segmentation"
