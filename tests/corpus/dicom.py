"""DICOM files and folders of every kind, by pydicom and highdicom."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RawDataStorage,
    RLELossless,
    RTDoseStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    UltrasoundMultiFrameImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    XRayAngiographicImageStorage,
    generate_uid,
)

from tests.corpus.entries import CORPUS, LPS_TO_RAS, Reference, by_highdicom, by_pydicom, turned

ROW, COLUMN = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
START, SPACING, STEP = np.array([-50.0, -40.0, 30.0]), (0.7, 0.5), 2.5
COUNT, ROWS, COLUMNS = 5, 4, 6


def frames(count: int = COUNT, code: str = "u2", shape: tuple[int, int] = (ROWS, COLUMNS)) -> Any:
    k, r, c = np.indices((count, *shape))
    return (100 * k + 10 * r + c + 1).astype(code)


def item(**values: Any) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def dataset(sop_class: str, pixels: Any = None, *, syntax: str = ExplicitVRLittleEndian,
            **tags: Any) -> FileDataset:  # fmt: skip
    """Return a data set; tags of None are left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128),
                       is_implicit_VR=syntax == ImplicitVRLittleEndian,
                       is_little_endian=syntax != ExplicitVRBigEndian)  # fmt: skip
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    data.FrameOfReferenceUID = "1.2.3.5"
    data.Modality, data.SeriesDescription, data.InstanceNumber = "MR", "brain", 1
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID",
                 "StudyDate", "StudyTime", "AccessionNumber"):  # fmt: skip
        setattr(data, name, "")
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape[-2:] if pixels.ndim < 4 else pixels.shape[1:3]
        if pixels.ndim > 2:
            data.NumberOfFrames = len(pixels)
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
        data.HighBit = data.BitsStored - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        swapped = ">" if syntax == ExplicitVRBigEndian else "<"
        raw = pixels.astype(pixels.dtype.newbyteorder(swapped)).tobytes()
        data.PixelData = raw + bytes(len(raw) % 2)
        data["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for name, value in tags.items():
        if value is not None:
            setattr(data, name, value)
        elif name in data:
            delattr(data, name)
    return data


def save(path: Path, data: FileDataset, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options.setdefault("enforce_file_format", True)
    data.save_as(path, **options)
    return path


def series(folder: Path, count: int = COUNT, *, name: str = "series", origins: Any = None,
           axes: Any = (ROW, COLUMN), code: str = "i2", sop_class: str = CTImageStorage,
           each: Any = None, compress: Any = None, **tags: Any) -> list[Path]:  # fmt: skip
    """Write a series, a slice a file; ``each`` returns more tags of slice k."""
    row, column = axes
    if origins is None:
        origins = [START + STEP * k * np.cross(row, column) for k in range(count)]
    order = np.random.default_rng(3).permutation(len(origins))
    files = []
    for k, origin in enumerate(origins):
        own: dict[str, Any] = {
            "Modality": "CT",
            "PixelSpacing": list(SPACING),
            "SliceThickness": STEP,
            "ImagePositionPatient": None if origin is None else [float(v) for v in origin],
            "ImageOrientationPatient": [float(v) for v in (*row, *column)],
            "InstanceNumber": k + 1,
            **tags,
            **(each(k) if each else {}),
        }
        pixels = own.pop("pixels", None)
        data = dataset(
            sop_class, frames(len(origins), code)[k] if pixels is None else pixels, **own
        )
        if compress is not None:
            data.compress(compress)
        files.append(save(folder / name / f"im{order[k]:03d}", data))
    return files


def right(**options: Any) -> Any:
    """Return a maker of a series whose files pydicom reads rightly, each for itself."""

    def make(folder: Path) -> tuple[Path, Reference]:
        files = series(folder, **options)
        return folder / "series", by_pydicom(files)

    return make


def wrong(**options: Any) -> Any:
    return lambda folder: (series(folder, **options)[0].parent, None)


def along(places: Any, shift: Any = (0, 0, 0)) -> list[Any]:
    return [START + np.array([0, 0, STEP]) * z + np.asarray(shift) * z for z in places]


# Classic series.
CORPUS.add("dicom/series", right())
for code in ("u1", "u2", "i2"):
    CORPUS.add(f"dicom/type {code}", right(code=code))
CORPUS.add("dicom/12 bits of 16", right(code="u2", BitsStored=12, HighBit=11))
CORPUS.add("dicom/rescaled to HU", right(RescaleSlope="2", RescaleIntercept="-1024"))
CORPUS.add("dicom/rescaled by 0.3", right(RescaleSlope="0.3", RescaleIntercept="1"))
CORPUS.add("dicom/PET, a slope for each slice", right(
    sop_class=PositronEmissionTomographyImageStorage, Modality="PT",
    each=lambda k: {"RescaleSlope": str(0.5 + 0.25 * k), "RescaleIntercept": "0"}))  # fmt: skip
CORPUS.add("dicom/reversed", right(origins=along(range(5, 0, -1))))
CORPUS.add("dicom/coronal", right(axes=(ROW, np.array([0, 0, -1.0]))))
CORPUS.add("dicom/sagittal", right(axes=(COLUMN, np.array([0, 0, -1.0]))))
CORPUS.add("dicom/feet first", right(axes=(-ROW, COLUMN)))
for angle in (10, 44):
    CORPUS.add(f"dicom/oblique {angle}", right(axes=(turned(angle)[:, 0], turned(angle)[:, 1])))
CORPUS.add("dicom/tilted", right(origins=along(range(5), (0, 0.6, 0))), warned="tilted")
CORPUS.add("dicom/one slice", right(count=1))
CORPUS.add("dicom/thickness unlike the step", right(SliceThickness=9))
CORPUS.add("dicom/wrong SpacingBetweenSlices", right(SpacingBetweenSlices=7))
CORPUS.add("dicom/MONOCHROME1", right(PhotometricInterpretation="MONOCHROME1",
                                      RescaleSlope="1", RescaleIntercept="-1024"))  # fmt: skip
CORPUS.add("dicom/padding value", right(PixelPaddingValue=-50))
CORPUS.add("dicom/ISO characters in its description",
           right(SpecificCharacterSet="ISO_IR 192", SeriesDescription="Schädel groß"))  # fmt: skip
CORPUS.add("dicom/escape codes in its description", right(SeriesDescription="\x1b[31mred"))
for syntax, uid in (("RLE", RLELossless), ("JPEG-LS", JPEGLSLossless)):
    CORPUS.add(f"dicom/{syntax}", right(compress=uid))
CORPUS.add("dicom/RLE, signed", right(compress=RLELossless, code="i2"))
CORPUS.add("dicom/big endian", right(syntax=ExplicitVRBigEndian, code="u2"))
CORPUS.add("dicom/implicit VR", right(syntax=ImplicitVRLittleEndian))
CORPUS.add("dicom/MR", right(sop_class=MRImageStorage, Modality="MR"))

MOVED = [*along(range(2)), START + np.array([5, 0, 5]), *along([3, 4, 5])]
for label, options, word in (
    ("slice missing", {"origins": along([0, 1, 2, 4, 5, 6])}, "missing"),
    ("slice doubled", {"origins": along([0, 1, 2, 2, 3])}, "same position"),
    ("uneven", {"origins": along([0, 1, 2, 4.4, 6.1, 7.3])}, "uneven"),
    ("7.5 and 12.5 mm", {"origins": along([0, 3, 6, 11, 16, 21])}, "uneven"),
    ("one slice shifted", {"origins": MOVED},
     "shifted"),
    ("random drift", {"origins": along(range(6)) + np.random.default_rng(2).normal(
        0, 3, (6, 3)) * [1, 1, 0]}, "shifted"),
    ("no position", {"origins": [None] * 4}, "no position"),
    ("no PixelSpacing", {"PixelSpacing": None}, "pixel size"),
    ("PixelSpacing 0", {"PixelSpacing": [0, 0]}, "pixel size"),
    ("ImagerPixelSpacing only", {"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.2]},
     "ImagerPixelSpacing"),
    ("no orientation", {"ImageOrientationPatient": None}, "orientation"),
    ("orientation all 0", {"ImageOrientationPatient": [0.0] * 6}, "orientation"),
    ("orientation not perpendicular", {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.8, 0]},
     "ImageOrientationPatient"),
    ("orientation not of unit length", {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
     "ImageOrientationPatient"),
    ("two orientations", {"each": lambda k: {} if k < 3 else {
        "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}}, "orientations"),
    ("two sizes", {"each": lambda k: {} if k < 3 else {"pixels": frames(1, "i2", (6, 6))[0]}},
     "mixes|sizes"),
    ("two pixel spacings", {"each": lambda k: {} if k < 3 else {"PixelSpacing": [1, 1]}},
     "pixel spacings"),
    ("palette colors", {"PhotometricInterpretation": "PALETTE COLOR", "code": "u1"}, "colors"),
    ("mosaic", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaic"),
):  # fmt: skip
    CORPUS.add(f"dicom/{label}", wrong(**options), refused=word)


@CORPUS.add("dicom/no position, spacing given", spacing=(2.0, 0.7, 0.5))
def _stacked(folder: Path) -> tuple[Path, Reference]:
    series(folder, origins=[None] * COUNT)
    affine = LPS_TO_RAS @ np.diag([0.5, 0.7, 2.0, 1.0])
    return folder / "series", Reference.of(frames(COUNT, "i2").transpose(2, 1, 0), affine)


def colors(kind: str) -> Any:
    def make(folder: Path) -> tuple[Path, None]:
        pixels = np.zeros((ROWS, COLUMNS, 3), "u1")
        data = dataset(CTImageStorage, pixels[..., 0], PixelSpacing=[1, 1],
                       ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                       SamplesPerPixel=3, PlanarConfiguration=0,
                       PhotometricInterpretation=kind, PixelData=pixels.tobytes())  # fmt: skip
        return save(folder / "a.dcm", data), None

    return make


for kind in ("RGB", "YBR_FULL", "YBR_FULL_422"):
    CORPUS.add(f"dicom/{kind}", colors(kind), refused="colors")


def encoded(kind: str) -> Any:
    """Return a maker of a series whose pixels Pillow encodes."""

    def make(folder: Path) -> tuple[Path, Reference]:
        jpeg = kind == "JPEG"
        files = series(folder, code="u1" if jpeg else "u2")
        lossy = []
        for file in files:
            data = pydicom.dcmread(file)
            stream = BytesIO()
            image = Image.fromarray(data.pixel_array)
            options = {"quality": 95} if jpeg else {"irreversible": False, "no_jp2": True}
            image.save(stream, kind, **options)
            lossy.append(np.asarray(Image.open(BytesIO(stream.getvalue()))))
            data.PixelData = encapsulate([stream.getvalue()])
            data["PixelData"].VR = "OB"
            data["PixelData"].is_undefined_length = True
            data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else JPEG2000Lossless
            save(file, data)
        reference = framewise(along(range(COUNT)), np.stack(lossy))
        return folder / "series", reference

    return make


CORPUS.add("dicom/JPEG", encoded("JPEG"))
CORPUS.add("dicom/JPEG 2000", encoded("JPEG2000"))


@CORPUS.add("dicom/private elements beside the pixels")
def _private_beside(folder: Path) -> tuple[Path, Reference]:
    files = series(folder)
    for file in files:
        data = pydicom.dcmread(file)
        data.private_block(0x0029, "MAKER", create=True).add_new(0x10, "OB", b"abcd" * 10)
        save(file, data)
    return folder / "series", by_pydicom(files)


@CORPUS.add("dicom/no meta header")
def _no_meta(folder: Path) -> tuple[Path, Reference]:
    files = series(folder, name="whole", syntax=ImplicitVRLittleEndian)
    reference = by_pydicom(files)
    for k, file in enumerate(files):
        data = pydicom.dcmread(file)
        bare = Dataset()
        bare.update(data)
        (folder / "series").mkdir(exist_ok=True)
        bare.save_as(folder / "series" / f"{k}.dcm", implicit_vr=True, little_endian=True)
    return folder / "series", reference


@CORPUS.add("dicom/truncated slice", refused="truncated|damaged|promises")
def _cut_slice(folder: Path) -> tuple[Path, None]:
    files = series(folder)
    files[2].write_bytes(files[2].read_bytes()[:-20])
    return folder / "series", None


def _slope(content: bytes) -> Any:
    """Return a maker of a series in whose middle slice the slope 1.5 says something else."""

    def make(folder: Path) -> tuple[Path, None]:
        files = series(folder, RescaleSlope="1.5 ", RescaleIntercept="0")
        whole = files[2].read_bytes()
        assert whole.count(b"1.5 ") == 1
        files[2].write_bytes(whole.replace(b"1.5 ", content))
        return folder / "series", None

    return make


for label, content, word in (
    ("slope 0", b"0.0 ", "RescaleSlope is 0"),
    ("slope with a decimal comma", b"1,5 ", "RescaleSlope is no finite number"),
    ("infinite slope", b"inf ", "RescaleSlope is no finite number"),
):
    CORPUS.add(f"dicom/{label}", _slope(content), refused=word)


@CORPUS.add("dicom/only private elements", refused="cannot be read|no image|damaged")
def _private(folder: Path) -> tuple[Path, None]:
    data = dataset(RawDataStorage)
    data.private_block(0x0029, "MAKER", create=True).add_new(0x10, "OB", b"abcd" * 10)
    return save(folder / "a.dcm", data), None


@CORPUS.add("dicom/text named .dcm", refused="DICOM")
def _text(folder: Path) -> tuple[Path, None]:
    (folder / "a.dcm").write_text("no image at all " * 20)
    return folder / "a.dcm", None


for label, sop_class, word in (
    ("presentation state", GrayscaleSoftcopyPresentationStateStorage, "Presentation State"),
    ("structured report", "1.2.840.10008.5.1.4.1.1.88.22", "SR"),
    ("key objects", KeyObjectSelectionDocumentStorage, "Key Object"),
    ("PDF", EncapsulatedPDFStorage, "PDF"),
    ("treatment plan", RTPlanStorage, "Plan"),
    ("raw data", RawDataStorage, "Raw Data"),
    ("structure set without contours", RTStructureSetStorage, "contour|Structure"),
):
    CORPUS.add(
        f"dicom/{label}",
        lambda f, sop_class=sop_class: (save(f / "a.dcm", dataset(sop_class)), None),
        refused=word,
    )


@CORPUS.add("dicom/radiograph without a place", refused="position|orientation|pixel size")
def _radiograph(folder: Path) -> tuple[Path, None]:
    data = dataset(ComputedRadiographyImageStorage, frames(1)[0], Modality="CR",
                   ImagerPixelSpacing=[0.2, 0.2])  # fmt: skip
    return save(folder / "a.dcm", data), None


# Folders of several series.
@CORPUS.add("dicom/two series", refused="2 series.*Choose|2 series.*choose")
def _two(folder: Path) -> tuple[Path, None]:
    series(folder)
    series(folder, name="b", SeriesInstanceUID="1.2.3.9", SeriesDescription="thin")
    for file in (folder / "b").iterdir():
        shutil.move(file, folder / "series" / f"b{file.name}")
    return folder / "series", None


@CORPUS.add("dicom/two series, the second chosen", series="2")
def _second(folder: Path) -> tuple[Path, Reference]:
    series(folder)
    files = series(folder, name="b", SeriesInstanceUID="1.2.3.9", origins=along(range(7)))
    reference = by_pydicom(files)
    for file in files:
        shutil.move(file, folder / "series" / f"b{file.name}")
    return folder / "series", reference


@CORPUS.add("dicom/series that is not there", refused="no series", series="7")
def _absent(folder: Path) -> tuple[Path, None]:
    return series(folder)[0].parent, None


@CORPUS.add("dicom/tree of a disc")
def _tree(folder: Path) -> tuple[Path, Reference]:
    files = series(folder, name="disc/DICOM/ST0/SE0")
    return folder / "disc", by_pydicom(files)


def _directory(folder: Path) -> Path:
    from pydicom.fileset import FileSet

    made = FileSet()
    for file in series(folder, name="plain"):
        data = pydicom.dcmread(file)
        data.PatientID, data.StudyID, data.SeriesNumber = "1", "1", 1
        data.StudyDate, data.StudyTime = "20200101", "120000"
        made.add(data)
    made.write(folder / "disc")
    return folder / "disc"


@CORPUS.add("dicom/DICOMDIR")
def _dicomdir(folder: Path) -> tuple[Path, Reference]:
    disc = _directory(folder)
    return disc / "DICOMDIR", by_pydicom(sorted((folder / "plain").iterdir()))


@CORPUS.add("dicom/folder of a DICOMDIR")
def _disc(folder: Path) -> tuple[Path, Reference]:
    return _directory(folder), by_pydicom(sorted((folder / "plain").iterdir()))


@CORPUS.add("dicom/reports and hidden files beside it")
def _beside(folder: Path) -> tuple[Path, Reference]:
    files = series(folder)
    save(folder / "series" / "report", dataset("1.2.840.10008.5.1.4.1.1.88.22"))
    save(folder / "series" / "rs", dataset(RTStructureSetStorage))
    (folder / "series" / "._im000").write_bytes(bytes(200))
    (folder / "series" / "notes.txt").write_text("seen")
    return folder / "series", by_pydicom(files)


@CORPUS.add("dicom/two echoes", refused="2 volumes|choose")
def _echoes(folder: Path) -> tuple[Path, None]:
    return _echo_series(folder)[0].parent, None


@CORPUS.add("dicom/two echoes, the second chosen", series="1.2")
def _echo(folder: Path) -> tuple[Path, Reference]:
    files = _echo_series(folder)
    return folder / "series", by_pydicom(files[COUNT:])


def _echo_series(folder: Path) -> list[Path]:
    return series(folder, origins=along([*range(COUNT), *range(COUNT)]), sop_class=MRImageStorage,
                  each=lambda k: {"EchoTime": 5 + 20 * (k // COUNT)})  # fmt: skip


# Files of several frames.
def enhanced(folder: Path, origins: Any, *, groups: Any = None, axes: Any = (ROW, COLUMN),
             measures: Any = None, slopes: Any = None, sop_class: str = EnhancedMRImageStorage,
             pixels: Any = None, **tags: Any) -> Path:  # fmt: skip
    pixels = frames(len(origins)) if pixels is None else pixels
    data = dataset(sop_class, pixels, DimensionOrganizationType="3D", **tags)
    measures = {"PixelSpacing": list(SPACING), "SliceThickness": STEP} if measures is None else (
        measures)  # fmt: skip
    each = []
    for k, origin in enumerate(origins):
        row, column = axes if not isinstance(axes, list) else axes[k]
        group = item(PlaneOrientationSequence=Sequence(
            [item(ImageOrientationPatient=[float(v) for v in (*row, *column)])]))  # fmt: skip
        if origin is not None:
            place = item(ImagePositionPatient=[float(v) for v in origin])
            group.PlanePositionSequence = Sequence([place])
        if slopes is not None:
            values = item(RescaleSlope=slopes[k], RescaleIntercept=-3, RescaleType="US")
            group.PixelValueTransformationSequence = Sequence([values])
        for name, value in (groups(k) if groups else {}).items():
            setattr(group, name, value)
        each.append(group)
    shared = item(PixelMeasuresSequence=Sequence([item(**measures)])) if measures else item()
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(each)
    return save(folder / "a.dcm", data)


def framewise(
    origins: Any, pixels: Any, axes: Any = (ROW, COLUMN), slopes: Any = None
) -> Reference:
    """Return the reference of frames, each placed by its own origin."""
    points, values = [], []
    for k, origin in enumerate(origins):
        r, c = np.indices(pixels[k].shape).reshape(2, -1)
        lps = origin + c[:, None] * SPACING[1] * axes[0] + r[:, None] * SPACING[0] * axes[1]
        points.append(lps * [-1, -1, 1])
        scaled = pixels[k].reshape(-1, 1).astype(np.float64)
        values.append(scaled if slopes is None else scaled * slopes[k] - 3)
    return Reference(np.concatenate(points), np.concatenate(values))


OBLIQUE = (turned(30)[:, 0], turned(30)[:, 1])
for label, origins, options in (
    ("in order", along(range(5)), {}),
    ("reversed", along(range(5, 0, -1)), {}),
    ("out of order", along([3, 0, 4, 1, 2]), {}),
    ("oblique", [START + STEP * k * np.cross(*OBLIQUE) for k in (1, 0, 2, 3)], {"axes": OBLIQUE}),
    ("slope for each frame", along(range(5)), {"slopes": [1, 0.5, 2, 1.5, 3]}),
):
    CORPUS.add(f"frames/{label}", lambda f, origins=origins, options=options: (
        enhanced(f, origins, **options),
        framewise(origins, frames(len(origins)), **options)))  # fmt: skip
CORPUS.add("frames/by highdicom", lambda f: (
    enhanced(f, along(range(5))), by_highdicom(f / "a.dcm")))  # fmt: skip
CORPUS.add("frames/enhanced CT", lambda f: (
    enhanced(f, along(range(5)), sop_class=EnhancedCTImageStorage, Modality="CT"),
    framewise(along(range(5)), frames(5))))  # fmt: skip
CORPUS.add("frames/big endian", lambda f: (
    enhanced(f, along(range(5)), syntax=ExplicitVRBigEndian),
    framewise(along(range(5)), frames(5))))  # fmt: skip
CORPUS.add("frames/tilted", lambda f: (
    enhanced(f, along(range(5), (0, 0.7, 0))),
    framewise(along(range(5), (0, 0.7, 0)), frames(5))), warned="tilted")  # fmt: skip
for label, origins, options, word in (
    ("missing", along([0, 1, 2, 4, 5, 6]), {}, "missing"),
    ("doubled", along([0, 1, 1, 2]), {}, "same position"),
    ("uneven", along([0, 1, 2.4, 4]), {}, "uneven"),
    ("without position", [None] * 4, {}, "no position"),
    ("without pixel measures", along(range(4)), {"measures": {}}, "pixel size"),
    ("three planes", along(range(3)), {"axes": [(ROW, COLUMN), (COLUMN, np.array([0, 0, -1.0])),
                                                (ROW, np.array([0, 0, -1.0]))]}, "orientations"),
):  # fmt: skip
    CORPUS.add(f"frames/{label}", lambda f, origins=origins, options=options: (
        enhanced(f, origins, **options), None), refused=word)  # fmt: skip


def _diffusion(k: int) -> dict[str, Any]:
    return {"MRDiffusionSequence": Sequence([item(DiffusionBValue=float(1000 * (k // COUNT)))])}


TWICE = along([*range(COUNT), *range(COUNT)])
CORPUS.add("frames/two b-values", lambda f: (enhanced(f, TWICE, groups=_diffusion), None),
           refused="b-value")  # fmt: skip
CORPUS.add("frames/two b-values, the second chosen", lambda f: (
    enhanced(f, TWICE, groups=_diffusion),
    framewise(TWICE[COUNT:], frames(2 * COUNT)[COUNT:])), series="1.2")  # fmt: skip


def _phase(k: int) -> dict[str, Any]:
    part = "MAGNITUDE" if k % 2 else "PHASE"
    return {"MRImageFrameTypeSequence": Sequence([item(ComplexImageComponent=part)])}


CORPUS.add("frames/magnitude and phase interleaved", lambda f: (
    enhanced(f, along(np.repeat(range(COUNT), 2)), groups=_phase), None),
    refused="MAGNITUDE|PHASE|volumes")  # fmt: skip


@CORPUS.add("frames/fewer described than there are", refused="damaged")
def _fewer(folder: Path) -> tuple[Path, None]:
    path = enhanced(folder, along(range(4)))
    data = pydicom.dcmread(path)
    del data.PerFrameFunctionalGroupsSequence[-1]
    return save(path, data), None


for label, sop_class, tags in (
    ("ultrasound cine", UltrasoundMultiFrameImageStorage, {"FrameTime": 33}),
    ("angiography", XRayAngiographicImageStorage, {"CineRate": 15}),
    ("cine by its increment pointer", "1.2.840.10008.5.1.4.1.1.7.2",
     {"FrameIncrementPointer": 0x00181063, "FrameTime": 40}),
):  # fmt: skip
    CORPUS.add(f"frames/{label}", lambda f, sop_class=sop_class, tags=tags: (
        save(f / "a.dcm", dataset(sop_class, frames(4, "u1"), **tags)), None),
        refused="time")  # fmt: skip
CORPUS.add("frames/secondary capture without a place", lambda f: (
    save(f / "a.dcm", dataset("1.2.840.10008.5.1.4.1.1.7.2", frames(4, "u1"))), None),
    refused="position")  # fmt: skip
CORPUS.add("frames/microscopy tiles", lambda f: (
    save(f / "a.dcm", dataset(VLWholeSlideMicroscopyImageStorage, frames(4, "u1"),
         TotalPixelMatrixColumns=12, TotalPixelMatrixRows=8)), None),
    refused="tiles|micro|position")  # fmt: skip
CORPUS.add("frames/more claimed than there are", lambda f: (
    enhanced(f, along(range(4)), pixels=frames(4), PixelData=bytes(64)), None),
    refused="promises|truncated|damaged")  # fmt: skip


# Doses.
def dose(folder: Path, *, syntax: str = ExplicitVRLittleEndian, code: str = "u4",
         **tags: Any) -> Path:  # fmt: skip
    data = dataset(RTDoseStorage, frames(4, code) * 1000, syntax=syntax, **{
        "Modality": "RTDOSE", "PixelSpacing": list(SPACING),
        "ImagePositionPatient": START.tolist(), "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "GridFrameOffsetVector": [0, 2.5, 5, 7.5], "DoseUnits": "GY", "DoseType": "PHYSICAL",
        "DoseGridScaling": "0.00001", "FrameIncrementPointer": 0x3004000C, **tags})  # fmt: skip
    return save(folder / "dose.dcm", data)


def right_dose(**options: Any) -> Any:
    def make(folder: Path) -> tuple[Path, Reference]:
        path = dose(folder, **options)
        scaled = pydicom.dcmread(path).pixel_array * 1e-5
        reference = framewise(along(range(4)), scaled)
        return path, reference

    return make


CORPUS.add("dose/uint32", right_dose())
CORPUS.add("dose/uint16", right_dose(code="u2"))
CORPUS.add("dose/big endian", right_dose(syntax=ExplicitVRBigEndian))
CORPUS.add("dose/offsets from the frame of reference", right_dose(
    GridFrameOffsetVector=[30, 32.5, 35, 37.5]))  # fmt: skip
CORPUS.add("dose/no scaling", lambda f: (dose(f, DoseGridScaling=None), None), refused="Scaling")
CORPUS.add("dose/no offsets", lambda f: (dose(f, GridFrameOffsetVector=None), None),
           refused="position")  # fmt: skip


# Segmentations.
def segmentation(folder: Path, *, kind: str = "BINARY", overlap: bool = False,
                 omit: bool = True) -> Path:  # fmt: skip
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr.coding import CodedConcept

    images = sorted((pydicom.dcmread(p) for p in series(folder)),
                    key=lambda d: float(d.ImagePositionPatient[2]))  # fmt: skip
    organ = CodedConcept("91723000", "SCT", "Anatomical Structure")
    masks = np.zeros((COUNT, ROWS, COLUMNS, 2), "u1")
    masks[1:3, 1:3, 2:5, 0] = 1
    masks[3:, 2:, 3:, 1] = 1
    if overlap:
        masks[2, 2, 3, 1] = 1
    values: Any = masks
    if kind == "FRACTIONAL":
        values = masks * 0.5
    elif kind == "LABELMAP":
        values = (masks * [1, 2]).sum(axis=-1).astype("u1")
    described = [SegmentDescription(k, name, organ, organ, "MANUAL")
                 for k, name in enumerate(("liver", "spleen"), 1)]  # fmt: skip
    Segmentation(images, values, kind, described, "1.2.3.9", 1, "1.2.3.9.1", 1, "maker", "model",
                 "1", "serial", omit_empty_frames=omit).save_as(folder / "seg.dcm")  # fmt: skip
    return folder / "seg.dcm"


def by_seg(path: Path) -> Reference:
    """Return the labels that highdicom reads, its segments combined."""
    import highdicom

    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    return Reference.of(np.asarray(volume.array), LPS_TO_RAS @ volume.affine, sparse=True)


for label, options in (
    ("binary", {}),
    ("binary with empty frames", {"omit": False}),
    ("label map", {"kind": "LABELMAP"}),
):
    CORPUS.add(f"seg/{label}", lambda f, options=options: (
        segmentation(f, **options), by_seg(f / "seg.dcm")), reader="labels")  # fmt: skip
CORPUS.add("seg/as an image", lambda f: (segmentation(f), by_seg(f / "seg.dcm")))
CORPUS.add("seg/overlap", lambda f: (segmentation(f, overlap=True), None), reader="labels",
           refused="overlap")  # fmt: skip
CORPUS.add("seg/fractional", lambda f: (segmentation(f, kind="FRACTIONAL"), None),
           reader="labels", refused="fractional")  # fmt: skip
CORPUS.add("seg/segment that is not there", lambda f: (segmentation(f), None), reader="labels",
           refused="no segment", segments=["kidney"])  # fmt: skip


@CORPUS.add("seg/one of two that overlap", reader="labels", segments=["spleen"])
def _one_segment(folder: Path) -> tuple[Path, Reference]:
    import highdicom

    path = segmentation(folder, overlap=True)
    volume = highdicom.seg.segread(path).get_volume(segment_numbers=[2], combine_segments=True)
    return path, Reference.of(np.asarray(volume.array), LPS_TO_RAS @ volume.affine, sparse=True)


@CORPUS.add("seg/frames without a segment", reader="labels", refused="damaged")
def _unowned(folder: Path) -> tuple[Path, None]:
    path = segmentation(folder)
    data = pydicom.dcmread(path)
    for group in data.PerFrameFunctionalGroupsSequence:
        if "SegmentIdentificationSequence" in group:
            del group.SegmentIdentificationSequence
    if "SegmentIdentificationSequence" in data.SharedFunctionalGroupsSequence[0]:
        del data.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence
    return save(path, data), None
