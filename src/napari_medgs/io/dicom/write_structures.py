"""Masks as RT Structure Sets: contours along voxel edges on the series of their image."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.dicom.contours import outline_mask
from napari_medgs.io.dicom.frames import Frame
from napari_medgs.io.dicom.header import STRUCTURE_SET, quiet_pydicom, text, value
from napari_medgs.io.dicom.segments import DicomSegment
from napari_medgs.io.dicom.source import SourceSeries
from napari_medgs.io.dicom.write_segmentation import default_color, series_number, short_name

_LARGEST_NUMBER = 2**31 - 1
# Elements of patient and study (PS3.3 C.7.1.1, C.7.2.1): first those that must be there, if empty.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_OPTIONAL = ("StudyDescription", "PatientAge", "PatientSize", "PatientWeight")


def write_structures(
    path: str | Path,
    labels: NDArray[Any],
    source: SourceSeries,
    segments: Sequence[DicomSegment],
) -> Path:
    """Write labels as an RT Structure Set with one structure per label.

    Parameters
    ----------
    path : str or Path
    labels : (Z, Y, X) ndarray of integers
        On the grid of the series; none negative.
    source : SourceSeries
        The series that the mask was drawn on, whose patient and study the file repeats.
    segments : sequence of DicomSegment
        Names, colors and codes of all labels that occur, by value, which becomes the ROI number.

    Returns
    -------
    Path

    Raises
    ------
    LabelError
        When the mask is empty, or a label is too large for an ROI number.
    FileError
        When the series lacks identifiers, or the file cannot be written.

    Notes
    -----
    Contours run along the edges of voxels, so that their area is that of the voxels, and filling
    them gives the mask back. Holes are joined to the outside by a channel of no width.

    References
    ----------
    DICOM PS3.3, A.19 (RT Structure Set) and C.8.8.6 (ROI Contour).
    """
    path = Path(path)
    source.check_reference("an RT Structure Set")
    if not labels.any():
        raise LabelError(f"{path}: the mask is empty; an RT Structure Set needs a structure.")
    if max(segment.value for segment in segments) > _LARGEST_NUMBER:
        raise LabelError(f"{path}: ROI numbers go up to {_LARGEST_NUMBER:,}; renumber the labels.")
    data = _head(source)
    stack = source.stacked(labels)
    frame_of_reference = text(source.first, "FrameOfReferenceUID")
    data.ReferencedFrameOfReferenceSequence = [_reference(source)]
    data.StructureSetROISequence = [
        _item(
            ROINumber=s.value,
            ReferencedFrameOfReferenceUID=frame_of_reference,
            ROIName=short_name(s.name),
            ROIGenerationAlgorithm="",
        )
        for s in segments
    ]
    lps = source.to_lps()
    data.ROIContourSequence = [
        _contours(k, segment, stack, source, lps) for k, segment in enumerate(segments, 1)
    ]
    data.RTROIObservationsSequence = [_observation(k, s) for k, s in enumerate(segments, 1)]
    with atomic_path(path) as temporary, quiet_pydicom():
        data.save_as(temporary, enforce_file_format=True)
    return path


def _head(source: SourceSeries) -> Any:
    """Return a data set with patient, study, series and equipment."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    from napari_medgs import __version__

    now = datetime.datetime.now()
    first = source.first
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    with quiet_pydicom():
        for keyword in _REQUIRED:
            setattr(data, keyword, value(first, keyword) or "")
        for keyword in _OPTIONAL:
            if value(first, keyword) is not None:
                setattr(data, keyword, value(first, keyword))
    data.SOPClassUID, data.SOPInstanceUID = STRUCTURE_SET, generate_uid()
    data.StudyInstanceUID = text(first, "StudyInstanceUID")
    data.SeriesInstanceUID, data.SeriesNumber = generate_uid(), series_number(source)
    data.SeriesDescription = f"Contours on {text(first, 'SeriesDescription') or 'the series'}"[:64]
    data.Modality, data.InstanceNumber, data.OperatorsName = "RTSTRUCT", 1, ""
    data.FrameOfReferenceUID = text(first, "FrameOfReferenceUID")
    data.PositionReferenceIndicator = text(first, "PositionReferenceIndicator")
    data.Manufacturer = data.ManufacturerModelName = "napari-medgs"
    data.SoftwareVersions = __version__
    data.InstanceCreationDate = data.StructureSetDate = data.SeriesDate = now.strftime("%Y%m%d")
    data.InstanceCreationTime = data.StructureSetTime = data.SeriesTime = now.strftime("%H%M%S")
    data.StructureSetLabel = "SEGMENTATION"
    data.ApprovalStatus = "UNAPPROVED"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def _item(**elements: Any) -> Any:
    from pydicom.dataset import Dataset

    made = Dataset()
    for keyword, content in elements.items():
        setattr(made, keyword, content)
    return made


def _reference(source: SourceSeries) -> Any:
    """Return what says to which study and series the contours belong."""
    first = source.first
    series = _item(
        SeriesInstanceUID=source.uid,
        ContourImageSequence=[_image(source, frame) for frame in source.frames],
    )
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # Detached Study Management, retired
        ReferencedSOPInstanceUID=text(first, "StudyInstanceUID"),
        RTReferencedSeriesSequence=[series],
    )
    return _item(
        FrameOfReferenceUID=text(first, "FrameOfReferenceUID"), RTReferencedStudySequence=[study]
    )


def _image(source: SourceSeries, frame: Frame) -> Any:
    header = source.headers[frame.path]
    made = _item(
        ReferencedSOPClassUID=text(header, "SOPClassUID"),
        ReferencedSOPInstanceUID=text(header, "SOPInstanceUID"),
    )
    if frame.count > 1:
        made.ReferencedFrameNumber = frame.index + 1
    return made


def _contours(
    number: int,
    segment: DicomSegment,
    stack: NDArray[Any],
    source: SourceSeries,
    lps: NDArray[np.float64],
) -> Any:
    """Return all contours of one label, slice by slice."""
    color = np.asarray(segment.color or default_color(number), dtype=np.float64)
    contours = []
    for k in np.flatnonzero((stack == segment.value).any(axis=(1, 2))).tolist():
        for polygon in outline_mask(stack[k] == segment.value):
            points = np.column_stack([polygon[:, ::-1], np.full(len(polygon), float(k))])
            places = points @ lps[:3, :3].T + lps[:3, 3]
            contour = _item(
                ContourImageSequence=[_image(source, source.frames[k])],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(places),
            )
            _set_points(contour, places)
            contours.append(contour)
    made = _item(
        ROIDisplayColor=np.rint(np.clip(color, 0, 1) * 255).astype(int).tolist(),
        ReferencedROINumber=segment.value,
    )
    if contours:
        made.ContourSequence = contours
    return made


def _set_points(contour: Any, places: NDArray[np.float64]) -> None:
    """Store points as text at once: pydicom takes seconds where it checks each of millions."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    text = "\\".join(f"{v + 0.0:.6f}" for v in places.ravel().tolist()).encode()
    text += b" " * (len(text) % 2)
    tag = Tag("ContourData")
    contour[tag] = RawDataElement(tag, "DS", len(text), text, 0, False, True)


def _observation(number: int, segment: DicomSegment) -> Any:
    made = _item(
        ObservationNumber=number,
        ReferencedROINumber=segment.value,
        RTROIInterpretedType="",
        ROIInterpreter="",
    )
    if segment.kind is not None:
        code, scheme, meaning = segment.kind
        made.RTROIIdentificationCodeSequence = [
            _item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
        ]
    return made
