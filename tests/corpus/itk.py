"""NRRD, MetaImage, GIPL and FreeSurfer files, by SimpleITK, pynrrd, nibabel, and by hand."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import SimpleITK as sitk

from tests.corpus.entries import (
    CORPUS,
    LPS_TO_RAS,
    Reference,
    affine_of,
    by_itk,
    by_nibabel,
    by_nrrd,
    itk_affine,
    orientations,
    pattern,
    turned,
    unplaced,
)

SHAPE = (5, 4, 3)
AFFINE = affine_of()
AXES = orientations()


def itk_image(values: Any, affine: Any = AFFINE, *, vector: bool = False) -> Any:
    """Return a SimpleITK image of (I, J, K) or (I, J, K, C) values."""
    lps = LPS_TO_RAS @ affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    order = (2, 1, 0, 3) if values.ndim == 4 else (2, 1, 0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(order)), isVector=vector)
    image.SetSpacing(sizes.tolist())
    image.SetDirection((lps[:3, :3] / sizes).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def written(name: str, *, affine: Any = AFFINE, values: Any = None, compress: bool = True,
            vector: bool = False) -> Any:  # fmt: skip
    """Return a maker of a file that SimpleITK writes."""

    def make(folder: Path) -> tuple[Path, Reference]:
        data = pattern(SHAPE) if values is None else values
        path = folder / name
        sitk.WriteImage(itk_image(data, affine, vector=vector), str(path), compress)
        return path, Reference.of(data, affine)

    return make


for suffix in ("nrrd", "mha"):
    for code in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
        CORPUS.add(f"{suffix}/type {code}", written(f"a.{suffix}", values=pattern(SHAPE, code)))
    CORPUS.add(f"{suffix}/raw", written(f"a.{suffix}", compress=False))
    CORPUS.add(f"{suffix}/oblique", written(f"a.{suffix}", affine=affine_of(turned())))
    CORPUS.add(
        f"{suffix}/channels", written(f"a.{suffix}", values=pattern((5, 4, 3, 2)), vector=True)
    )
    CORPUS.add(f"{suffix}/one slice", written(f"a.{suffix}", values=pattern((5, 4, 1))))
for letters, axes in AXES.items():
    CORPUS.add(f"mha/axes {letters}", written("a.mha", affine=affine_of(axes)))
for letters in ("RAS", "LPS", "LAS", "ASL", "PIR", "SRP"):
    CORPUS.add(f"nrrd/axes {letters}", written("a.nrrd", affine=affine_of(AXES[letters])))
    CORPUS.add(f"mhd/axes {letters}", written("a.mhd", affine=affine_of(AXES[letters])))


@CORPUS.add("mha/2D")
def _flat(folder: Path) -> tuple[Path, Reference]:
    image = sitk.GetImageFromArray(pattern((4, 5)))
    image.SetSpacing((0.7, 0.9))
    image.SetOrigin((3.0, -8.0))
    sitk.WriteImage(image, str(folder / "a.mha"))
    return folder / "a.mha", by_itk(folder / "a.mha")


@CORPUS.add("mha/4D")
def _four(folder: Path) -> tuple[Path, Reference]:
    frames = [itk_image(pattern(SHAPE) + 1000 * k) for k in range(2)]
    sitk.WriteImage(sitk.JoinSeries(frames), str(folder / "a.mha"))
    return folder / "a.mha", by_itk(folder / "a.mha")


# MetaImage does not tell complex numbers from two channels.
CORPUS.add("mha/complex", lambda f: (_complex(f / "a.mha"), _parts(f / "a.mha")))
CORPUS.add("nrrd/complex", lambda f: (_complex(f / "a.nrrd"), None), refused="complex|channels|ax")


def _parts(path: Path) -> Reference:
    values = pattern((3, 4, 5), "c8").transpose(2, 1, 0)
    parts = np.stack([values.real, values.imag], axis=-1)
    return Reference.of(parts, itk_affine(sitk.ReadImage(str(path))))


def _complex(path: Path) -> Path:
    image = sitk.GetImageFromArray(pattern((3, 4, 5), "c8"))
    sitk.WriteImage(image, str(path))
    return path


def meta(folder: Path, values: Any, *, name: str = "a.mha", data: bytes | None = None,
         **fields: Any) -> Path:  # fmt: skip
    """Write a MetaImage file by hand; the fields in their order."""
    lines: dict[str, Any] = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "-31 17 55",
        "ElementSpacing": "0.7 0.9 2.5",
        "DimSize": "5 4 3",
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    lines = {**{k: fields.pop(k, v) for k, v in lines.items() if k != "ElementDataFile"}, **fields,
             "ElementDataFile": fields.get("ElementDataFile", "LOCAL")}  # fmt: skip
    header = "".join(f"{k} = {v}\n" for k, v in lines.items() if v is not None)
    raw = values.tobytes(order="F") if data is None else data
    (folder / name).write_bytes(header.encode() + raw)
    return folder / name


LPS_AFFINE = LPS_TO_RAS @ AFFINE


@CORPUS.add("mha/by hand, LPS")
def _hand(folder: Path) -> tuple[Path, Reference]:
    return meta(folder, pattern(SHAPE)), Reference.of(pattern(SHAPE), LPS_AFFINE)


@CORPUS.add("mha/big endian")
def _big(folder: Path) -> tuple[Path, Reference]:
    values = pattern(SHAPE)
    path = meta(folder, values.astype(">i2"), BinaryDataByteOrderMSB=True)
    return path, Reference.of(values, LPS_AFFINE)


@CORPUS.add("mha/Position and Orientation")
def _old_names(folder: Path) -> tuple[Path, Reference]:
    path = meta(folder, pattern(SHAPE), TransformMatrix=None, Offset=None,
                Orientation="0 1 0 1 0 0 0 0 1", Position="-31 17 55")  # fmt: skip
    return path, by_itk(path)


@CORPUS.add("mha/zlib by hand")
def _zlib(folder: Path) -> tuple[Path, Reference]:
    data = zlib.compress(pattern(SHAPE).tobytes(order="F"))
    path = meta(folder, None, data=data, CompressedData=True, CompressedDataSize=len(data))
    return path, Reference.of(pattern(SHAPE), LPS_AFFINE)


@CORPUS.add("mha/zlib, its size not named", refused="CompressedDataSize")
def _unsized(folder: Path) -> tuple[Path, None]:
    data = zlib.compress(pattern(SHAPE).tobytes(order="F"))
    return meta(folder, None, data=data, CompressedData=True), None


@CORPUS.add("mha/numbers as text")
def _ascii(folder: Path) -> tuple[Path, Reference]:
    words = "".join(f"{v} " for v in pattern(SHAPE).ravel(order="F")).encode()
    path = meta(folder, None, data=words, BinaryData=False)
    return path, Reference.of(pattern(SHAPE), LPS_AFFINE)


@CORPUS.add("mhd/raw beside it")
def _beside(folder: Path) -> tuple[Path, Reference]:
    (folder / "a.raw").write_bytes(pattern(SHAPE).tobytes(order="F"))
    path = meta(folder, None, name="a.mhd", data=b"", ElementDataFile="a.raw")
    return path, Reference.of(pattern(SHAPE), LPS_AFFINE)


for label, fields, word in (
    ("raw missing", {"name": "a.mhd", "data": b"", "ElementDataFile": "b.raw"}, "missing"),
    ("truncated", {"data": bytes(50)}, "promises|truncated"),
    ("sizes negative", {"DimSize": "5 -4 3"}, "sizes"),
    ("sizes 0", {"DimSize": "5 0 3"}, "empty|sizes"),
    ("size huge", {"DimSize": "50000 50000 50000"}, "promises"),
    ("type unknown", {"ElementType": "MET_FOO"}, "type"),
    ("NDims negative", {"NDims": -1}, "NDims"),  # ends ITK's process
    ("NDims of 11 digits", {"NDims": 99999999999}, "NDims"),
    ("a mesh", {"ObjectType": "Mesh"}, "no image"),
    ("text where numbers should be", {"BinaryData": False}, "numbers|truncated"),
    ("spacing 0", {"ElementSpacing": "0 0.9 2.5"}, "damaged|spacing|sizes|unusable"),
    ("axes singular", {"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "damaged|unusable|axes"),
    ("spacing no number", {"ElementSpacing": "x y z"}, "damaged|spacing|unusable"),
    ("checksum wrong", {"data": zlib.compress(bytes(120))[:-3] + b"abc", "CompressedData": True},
     "truncated or damaged"),
):  # fmt: skip
    CORPUS.add(
        f"mha/{label}",
        lambda folder, fields=fields: (meta(folder, pattern(SHAPE), **fields), None),
        refused=word,
    )
CORPUS.add("mha/no spacing in the file", lambda f: (
    meta(f, pattern(SHAPE), ElementSpacing=None, Offset=None, TransformMatrix=None), None),
    refused="spacing|say")  # fmt: skip


def nrrd_file(folder: Path, values: Any, *, name: str = "a.nrrd", directions: Any = None,
              **fields: Any) -> Path:  # fmt: skip
    """Write an NRRD file by pynrrd; fields of None are left out."""
    axes = AFFINE[:3, :3].T if directions is None else directions
    header = {"space": "right-anterior-superior", "space directions": axes,
              "space origin": AFFINE[:3, 3], **fields}  # fmt: skip
    nrrd.write(str(folder / name), values, {k: v for k, v in header.items() if v is not None},
               compression_level=1)  # fmt: skip
    return folder / name


def right_nrrd(values: Any = None, **options: Any) -> Any:
    def make(folder: Path) -> tuple[Path, Reference]:
        path = nrrd_file(folder, pattern(SHAPE) if values is None else values, **options)
        return path, by_nrrd(path)

    return make


for space in ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior",
              "RAS", "LAS", "LPS"):  # fmt: skip
    CORPUS.add(f"nrrd/space {space}", right_nrrd(space=space, directions=(AFFINE[:3, :3]
               @ turned()).T @ np.diag([1, 1, 1])))  # fmt: skip
CORPUS.add("nrrd/encoding bzip2", lambda f: (
    nrrd_file(f, pattern(SHAPE), encoding="bzip2"), None), refused="bzip2")  # fmt: skip
for encoding in ("raw", "gzip", "ascii"):
    CORPUS.add(f"nrrd/encoding {encoding}", right_nrrd(encoding=encoding))
CORPUS.add("nrrd/big endian", right_nrrd(endian="big", encoding="raw"))
CORPUS.add("nrrd/detached", right_nrrd(name="a.nhdr", encoding="raw"))
CORPUS.add("nrrd/detached gz", right_nrrd(name="a.nhdr", encoding="gzip"))
NONE = [np.nan] * 3
CORPUS.add("nrrd/channels first", right_nrrd(pattern((2, *SHAPE)),
           kinds=["vector", *["domain"] * 3],
           directions=np.array([NONE, *AFFINE[:3, :3].T])))  # fmt: skip
CORPUS.add("nrrd/list first", right_nrrd(pattern((3, *SHAPE)), kinds=["list", *["domain"] * 3],
           directions=np.array([NONE, *AFFINE[:3, :3].T])))  # fmt: skip
CORPUS.add("nrrd/list last", right_nrrd(pattern((*SHAPE, 2)), kinds=[*["domain"] * 3, "list"],
           directions=np.array([*AFFINE[:3, :3].T, NONE])))  # fmt: skip
CORPUS.add("nrrd/RGB", right_nrrd(pattern((3, *SHAPE), "u1"), kinds=["RGB-color", *["domain"] * 3],
           directions=np.array([NONE, *AFFINE[:3, :3].T])))  # fmt: skip
SHEARED = affine_of(np.array([[1.0, 0, 0], [0, 1, 0.25], [0, 0, 0.97]]))
CORPUS.add("nrrd/sheared", right_nrrd(directions=SHEARED[:3, :3].T))
CORPUS.add("nrrd/left-handed", right_nrrd(directions=-AFFINE[:3, :3].T))
BARE = {"space": None, "space directions": None, "space origin": None}
CORPUS.add("nrrd/no space", lambda f: (
    nrrd_file(f, pattern(SHAPE), **BARE, spacings=[0.7, 0.9, 2.5]), None),
    refused="place|space")  # fmt: skip
CORPUS.add("nrrd/no space, spacing given", lambda f: (
    nrrd_file(f, pattern(SHAPE), **BARE),
    unplaced(pattern(SHAPE).transpose(2, 1, 0), (2.5, 0.9, 0.7))),
    spacing=(2.5, 0.9, 0.7))  # fmt: skip
CORPUS.add("nrrd/no space, identity assumed", lambda f: (
    nrrd_file(f, pattern(SHAPE), **BARE, spacings=[0.7, 0.9, 2.5]),
    unplaced(pattern(SHAPE).transpose(2, 1, 0), (2.5, 0.9, 0.7))),
    warned="assumed", assume_identity=True)  # fmt: skip
CORPUS.add("nrrd/space scanner-xyz", lambda f: (
    nrrd_file(f, pattern(SHAPE), space="scanner-xyz"), None), refused="space|place")  # fmt: skip


def edited(old: bytes, new: bytes, *, cut: int = 0) -> Any:
    """Return a maker of an NRRD file in which bytes of the header are replaced."""

    def make(folder: Path) -> tuple[Path, None]:
        path = nrrd_file(folder, pattern(SHAPE), encoding="raw")
        content = path.read_bytes()
        assert old in content
        content = content.replace(old, new, 1)
        path.write_bytes(content[: len(content) - cut])
        return path, None

    return make


for label, old, new, cut, word in (
    ("truncated", b"raw", b"raw", 9, "promises|truncated"),
    ("no NRRD", b"NRRD", b"NERD", 0, "NRRD"),
    ("sizes no numbers", b"sizes: 5 4 3", b"sizes: 5 b 3", 0, "sizes"),
    ("size huge", b"sizes: 5 4 3", b"sizes: 50000 40000 30000", 0, "promises"),
    ("type block", b"type: int16", b"type: block", 0, "type"),
    ("encoding unknown", b"encoding: raw", b"encoding: zip", 0, "damaged|encoding"),
    ("directions singular", b"(0,0,2.5)", b"(0.7,0,0)", 0, "damaged|unusable|axes"),
    ("directions no numbers", b"(0,0,2.5)", b"(0,0,two)", 0, "damaged|unusable|axes"),
    ("dimension wrong", b"dimension: 3", b"dimension: 2", 0, "damaged|sizes|dimension|ax"),
):
    CORPUS.add(f"nrrd/{label}", edited(old, new, cut=cut), refused=word)


@CORPUS.add("nrrd/data file missing", refused="missing")
def _no_data(folder: Path) -> tuple[Path, None]:
    path = nrrd_file(folder, pattern(SHAPE), name="a.nhdr", encoding="raw")
    (folder / "a.raw").unlink()
    return path, None


# Segmentations of 3D Slicer.
LAYER = np.zeros((6, 5, 4), "u1")
LAYER[1:3, 1:4, 1:3] = 1
LAYER[4:, 2:, 2:] = 2


def segments(
    folder: Path, values: Any, *, layers: tuple[int, ...] = (0, 0), **options: Any
) -> Path:
    fields = {}
    for k, layer in enumerate(layers):
        value = 1 if len(set(layers)) > 1 else k + 1
        fields |= {f"Segment{k}_ID": f"S{k}", f"Segment{k}_Name": ("liver", "spleen")[k],
                   f"Segment{k}_LabelValue": str(value), f"Segment{k}_Layer": str(layer),
                   f"Segment{k}_Color": "0.5 0.25 1",
                   f"Segment{k}_Extent": "0 5 0 4 0 3"}  # fmt: skip
    options.setdefault("space", "left-posterior-superior")
    return nrrd_file(folder, values, name="a.seg.nrrd", **fields, **options)


CORPUS.add("seg.nrrd/one layer", lambda f: (segments(f, LAYER), by_nrrd(f / "a.seg.nrrd")),
           reader="labels")  # fmt: skip
TWO = np.stack([LAYER == 1, LAYER == 2]).astype("u1")
LAYERED: dict[str, Any] = {"layers": (0, 1), "kinds": ["list", *["domain"] * 3],
                           "directions": np.array([NONE, *AFFINE[:3, :3].T])}  # fmt: skip


@CORPUS.add("seg.nrrd/two layers", reader="labels")
def _two(folder: Path) -> tuple[Path, Reference]:
    path = segments(folder, TWO, **LAYERED)
    return path, Reference.of(LAYER, np.diag([-1.0, -1, 1, 1]) @ AFFINE)


@CORPUS.add("seg.nrrd/layers that overlap", reader="labels", refused="overlap")
def _both(folder: Path) -> tuple[Path, None]:
    values = TWO.copy()
    values[1, 1, 1, 1] = 1
    return segments(folder, values, **LAYERED), None


@CORPUS.add("seg.nrrd/one of two that overlap", reader="labels", segments=["spleen"])
def _one(folder: Path) -> tuple[Path, Reference]:
    values = TWO.copy()
    values[1, 1, 1, 1] = 1
    affine = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    return segments(folder, values, **LAYERED), Reference.of(values[1], affine)


CORPUS.add("seg.nrrd/segment that is not there", lambda f: (segments(f, LAYER), None),
           reader="labels", refused="no segment", segments=["kidney"])  # fmt: skip
CORPUS.add("seg.nrrd/written by SimpleITK, no segments",
           written("a.seg.nrrd", values=LAYER), reader="labels")  # fmt: skip

# GIPL has sizes and an origin, no axes.
CORPUS.add("gipl/int16", lambda f: (_gipl(f / "a.gipl"), by_itk(f / "a.gipl")))
CORPUS.add("gipl/gz", lambda f: (_gipl(f / "a.gipl.gz"), by_itk(f / "a.gipl.gz")))
CORPUS.add("gipl/uint8", lambda f: (_gipl(f / "a.gipl", "u1"), by_itk(f / "a.gipl")))
CORPUS.add("gipl/float32", lambda f: (_gipl(f / "a.gipl", "f4"), by_itk(f / "a.gipl")))
CORPUS.add("gipl/truncated", lambda f: (_gipl(f / "a.gipl", cut=20), None), refused="truncated")
CORPUS.add("gipl/magic damaged", lambda f: (_gipl(f / "a.gipl", flip=253), None),
           refused="GIPL")  # fmt: skip


def _gipl(path: Path, code: str = "i2", *, cut: int = 0, flip: int = 0) -> Path:
    sitk.WriteImage(itk_image(pattern(SHAPE, code), LPS_AFFINE), str(path))
    content = bytearray(path.read_bytes())
    if flip:
        content[flip] ^= 0xFF
    path.write_bytes(bytes(content[: len(content) - cut]))
    return path


# FreeSurfer.
def mgh(folder: Path, values: Any = None, affine: Any = AFFINE, *, name: str = "a.mgz",
        change: Any = None) -> Path:  # fmt: skip
    image = nib.MGHImage(pattern(SHAPE) if values is None else values, affine)
    path = folder / name
    nib.save(image, path)
    if change is not None:
        zipped = name.endswith("z")
        content = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
        content = change(content)
        path.write_bytes(gzip.compress(bytes(content)) if zipped else bytes(content))
    return path


def right_mgh(*args: Any, **options: Any) -> Any:
    def make(folder: Path) -> tuple[Path, Reference]:
        path = mgh(folder, *args, **options)
        return path, by_nibabel(path)

    return make


for code in ("u1", "i2", "i4", "f4"):
    CORPUS.add(f"mgz/type {code}", right_mgh(pattern(SHAPE, code)))
for letters in ("RAS", "LIA", "LPS", "PIR", "ASR"):
    CORPUS.add(f"mgz/axes {letters}", right_mgh(affine=affine_of(AXES[letters])))
CORPUS.add("mgz/oblique", right_mgh(affine=affine_of(turned())))
CORPUS.add("mgz/.mgh", right_mgh(name="a.mgh"))
CORPUS.add("mgz/frames", right_mgh(pattern((5, 4, 3, 2))))


def _invalid(content: bytearray) -> bytearray:
    content[28:30] = b"\0\0"
    return content


CORPUS.add("mgz/orientation not valid", lambda f: (mgh(f, change=_invalid), None),
           refused="not valid")  # fmt: skip
# The format's default: i, j, k run to left, inferior and anterior about the middle, by 1 mm.
# (nibabel has j and k the other way round.)
LIA = affine_of(AXES["LIA"], (1.0, 1.0, 1.0), (2.5, -1.5, 2.0))
CORPUS.add("mgz/identity assumed", lambda f: (
    mgh(f, change=_invalid), Reference.of(pattern(SHAPE), LIA)),
    warned="assumed", assume_identity=True)  # fmt: skip
CORPUS.add("mgz/truncated", lambda f: (mgh(f, change=lambda c: c[:300]), None),
           refused="truncated")  # fmt: skip
CORPUS.add("mgz/type unknown", lambda f: (
    mgh(f, change=lambda c: c[:20] + b"\0\0\0\x09" + c[24:]), None), refused="type")  # fmt: skip
CORPUS.add("mgz/sizes 0", lambda f: (
    mgh(f, change=lambda c: c[:4] + bytes(4) + c[8:]), None), refused="sizes")  # fmt: skip
