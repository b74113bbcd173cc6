"""OME-Zarr images, written by zarr; structure sets, whose contours are boxes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.sequence import Sequence
from pydicom.uid import RTStructureSetStorage, generate_uid

from tests.corpus import dicom
from tests.corpus.entries import CORPUS, Reference, by_pydicom, pattern, unplaced

VALUES = pattern((4, 6, 8), "u2")
SPACING = (3.0, 0.5, 0.7)


def image(**options: Any) -> Any:
    """Return a maker of an image of one level, its voxels 3 x 0.5 x 0.7 mm."""

    def make(folder: Path) -> tuple[Path, Reference]:
        from tests.io.test_ome_zarr import write

        write(folder / "a.ome.zarr", VALUES, **options)
        return folder / "a.ome.zarr", unplaced(VALUES, SPACING)

    return make


if find_spec("zarr") is not None:
    for version in ("0.4", "0.5"):
        CORPUS.add(f"zarr/{version}", image(version=version))
        CORPUS.add(f"zarr/{version}, three levels", image(version=version, levels=3))
    CORPUS.add("zarr/empty folder", lambda f: (_empty(f / "a.zarr"), None),
               refused="neither|Zarr")  # fmt: skip


def _empty(path: Path) -> Path:
    path.mkdir()
    return path


def structures(folder: Path, *, at: float = 0.0) -> Path:
    """Write a series and a structure set with one box, edges between voxels, on two slices."""
    uid = generate_uid()  # others of the corpus may lie in folders beside this one
    series = dicom.series(folder, SeriesInstanceUID=uid)
    data = dicom.dataset(RTStructureSetStorage, Modality="RTSTRUCT", SeriesInstanceUID="1.2.3.8")
    box = np.array([[1.5, 0.5], [4.5, 0.5], [4.5, 2.5], [1.5, 2.5]])  # columns and rows
    contours = []
    for k in (1, 2):
        corners = dicom.START + np.column_stack([
            box[:, 0] * dicom.SPACING[1], box[:, 1] * dicom.SPACING[0],
            np.full(4, dicom.STEP * k + at)])  # fmt: skip
        contours.append(dicom.item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4,
                                   ContourData=[float(v) for v in corners.ravel()]))  # fmt: skip
    data.StructureSetLabel = "plan"
    data.StructureSetROISequence = Sequence([dicom.item(
        ROINumber=1, ROIName="liver", ReferencedFrameOfReferenceUID="1.2.3.5")])  # fmt: skip
    data.ROIContourSequence = Sequence([dicom.item(
        ReferencedROINumber=1, ROIDisplayColor=[255, 0, 0],
        ContourSequence=Sequence(contours))])  # fmt: skip
    listed = dicom.item(SeriesInstanceUID=uid)
    study = dicom.item(RTReferencedSeriesSequence=Sequence([listed]))
    data.ReferencedFrameOfReferenceSequence = Sequence([dicom.item(
        FrameOfReferenceUID="1.2.3.5", RTReferencedStudySequence=Sequence([study]))])  # fmt: skip
    assert len(series) == dicom.COUNT
    return dicom.save(folder / "rs.dcm", data)


@CORPUS.add("rtstruct/box", reader="labels")
def _box(folder: Path) -> tuple[Path, Reference]:
    path = structures(folder)
    files = sorted((folder / "series").iterdir())
    points = by_pydicom(files).points
    lps = (points * [-1, -1, 1] - dicom.START) / [dicom.SPACING[1], dicom.SPACING[0], dicom.STEP]
    column, row, k = lps.T
    inside = (column > 1.5) & (column < 4.5) & (row > 0.5) & (row < 2.5) & (k > 0.5) & (k < 2.5)
    return path, Reference(points[inside], np.ones((int(inside.sum()), 1)), sparse=True)


@CORPUS.add("rtstruct/without its series", reader="labels", refused="series|image")
def _alone(folder: Path) -> tuple[Path, None]:
    path = structures(folder)
    for file in (folder / "series").iterdir():
        file.unlink()
    return path, None
