"""NIfTI files of every kind, written by nibabel and then, where it refuses, by their bytes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.corpus.entries import (
    CORPUS,
    Reference,
    affine_of,
    by_nibabel,
    orientations,
    pattern,
    turned,
)

SHAPE = (5, 4, 3)
PLAIN = affine_of()


def save(
    folder: Path,
    values: Any = None,
    affine: Any = PLAIN,
    *,
    kind: Any = nib.Nifti1Image,
    name: str = "scan.nii",
    sform: int = 1,
    qform: int = 0,
    order: str = "<",
    **header: Any,
) -> Path:
    """Write an image; ``header`` are fields set to whatever value, without a check."""
    values = pattern(SHAPE) if values is None else values
    image = kind(values, affine, header=kind.header_class(endianness=order))
    image.header.set_data_dtype(values.dtype)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform, strip_shears=True)
    path = folder / name
    nib.save(image, path)
    if header:
        patch(path, kind.header_class, order, **header)
    return path


def patch(path: Path, kind: Any, order: str = "<", **fields: Any) -> Path:
    """Set fields of a header on disk."""
    content = bytearray(path.read_bytes())
    size = kind.sizeof_hdr
    header = kind(bytes(content[:size]), endianness=order, check=False)
    for name, value in fields.items():
        header[name] = value
    content[:size] = header.structarr.tobytes()
    path.write_bytes(bytes(content))
    return path


def read_right(**options: Any) -> Any:
    """Return a maker whose file nibabel reads rightly."""

    def make(folder: Path) -> tuple[Path, Reference]:
        path = save(folder, **options)
        return path, by_nibabel(path)

    return make


def refused(**options: Any) -> Any:
    return lambda folder: (save(folder, **options), None)


for version, image_class in (("1", nib.Nifti1Image), ("2", nib.Nifti2Image)):
    for order in "<>":
        end = {"<": "little", ">": "big"}[order]
        CORPUS.add(
            f"nifti/{version} {end} endian", read_right(kind=image_class, order=order, qform=1)
        )
for code in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
    CORPUS.add(f"nifti/type {code}", read_right(values=pattern(SHAPE, code)))
CORPUS.add("nifti/type f4 big endian", read_right(values=pattern(SHAPE, "f4"), order=">"))

CORPUS.add("nifti/slope 2 inter 10", read_right(scl_slope=2, scl_inter=10))
CORPUS.add("nifti/slope 0.25 inter -3.5", read_right(scl_slope=0.25, scl_inter=-3.5))
CORPUS.add("nifti/slope negative", read_right(scl_slope=-1, scl_inter=100))
CORPUS.add("nifti/slope 0", read_right(scl_slope=0, scl_inter=7))
CORPUS.add("nifti/slope nan", read_right(scl_slope=np.nan, scl_inter=np.nan))
CORPUS.add("nifti/inter inf", refused(scl_slope=2, scl_inter=np.inf), refused="scl_inter")
CORPUS.add(
    "nifti/slope int32",
    read_right(values=pattern(SHAPE, "i4") + 20_000_000, scl_slope=1, scl_inter=-20_000_000),
)

AXES = orientations()
for letters in ("RAS", "LAS", "LPS", "RPI", "ASL", "SAR", "PIR", "ILP"):
    CORPUS.add(f"nifti/axes {letters}", read_right(affine=affine_of(AXES[letters]), qform=1))
CORPUS.add("nifti/oblique", read_right(affine=affine_of(turned()), qform=1))
CORPUS.add("nifti/oblique by 44 degrees", read_right(affine=affine_of(turned(44)), qform=1))
CORPUS.add("nifti/oblique qform only", read_right(affine=affine_of(turned()), sform=0, qform=1))
CORPUS.add("nifti/oblique mirrored", read_right(affine=affine_of(turned() * [1, 1, -1]), qform=1))
CORPUS.add("nifti/far from the origin", read_right(affine=affine_of(origin=(4e3, -9e3, 2e4))))
CORPUS.add(
    "nifti/sheared",
    read_right(affine=affine_of(np.array([[1.0, 0, 0], [0, 1, 0.25], [0, 0, 0.97]]))),
)
for code in (2, 3, 4, 5):
    CORPUS.add(f"nifti/code {code}", read_right(sform=code, qform=code))


@CORPUS.add("nifti/sform 15 mm from qform", warned="qform")
def _apart(folder: Path) -> tuple[Path, Reference]:
    path = save(folder, qform=1, qoffset_x=PLAIN[0, 3] + 15)
    return path, by_nibabel(path)


@CORPUS.add("nifti/sform mirrors qform", warned="qform")
def _mirrored(folder: Path) -> tuple[Path, Reference]:
    path = save(folder, affine=affine_of(AXES["LAS"]), qform=1)
    patch(path, nib.Nifti1Header, srow_x=[*PLAIN[0, :3], PLAIN[0, 3]])
    return path, by_nibabel(path)


@CORPUS.add("nifti/sform singular, qform good", warned="qform is used")
def _singular(folder: Path) -> tuple[Path, Reference]:
    path = save(folder, qform=1, srow_x=[0, 0, 0, 0])
    return path, Reference.of(pattern(SHAPE), PLAIN)


CORPUS.add("nifti/singular", refused(srow_x=[0, 0, 0, 0]), refused="singular")  # qform is not set
CORPUS.add("nifti/sform not finite", refused(srow_x=[np.nan, 0, 0, 0]), refused="singular")
CORPUS.add("nifti/no codes", refused(sform=0), refused="no affine")
CORPUS.add(
    "nifti/no codes, spacing given",
    lambda folder: (
        save(folder, sform=0),
        Reference.of(pattern(SHAPE), np.diag([2.0, 3.0, 4.0, 1.0])),
    ),
    spacing=(4.0, 3.0, 2.0),
)
CORPUS.add(
    "nifti/no codes, identity assumed",
    lambda folder: (
        save(folder, sform=0),
        Reference.of(pattern(SHAPE), np.diag([0.7, 0.9, 2.5, 1.0])),
    ),
    warned="assumed",
    assume_identity=True,
)
CORPUS.add("nifti/spacing contradicts", refused(), refused="contradicts", spacing=(1.0, 1.0, 1.0))


def qform_only(**fields: Any) -> Any:
    def make(folder: Path) -> tuple[Path, Reference]:
        # The place by nibabel before the odd field, which does not move it.
        path = save(folder, sform=0, qform=1)
        reference = by_nibabel(path)
        patch(path, nib.Nifti1Header, **fields)
        np.testing.assert_allclose(
            nib.load(path).header.get_qform(), nib.load(path).affine, atol=1e-5
        )
        return path, reference

    return make


CORPUS.add("nifti/qfac 0", qform_only(pixdim=[0, 0.7, 0.9, 2.5, 0, 0, 0, 0]))
CORPUS.add(
    "nifti/qfac -1", read_right(affine=affine_of(AXES["RAS"] * [1, 1, -1]), sform=0, qform=1)
)


@CORPUS.add("nifti/pixdim negative")
def _negative(folder: Path) -> tuple[Path, Reference]:
    path = save(folder, sform=0, qform=1)
    reference = by_nibabel(path)  # nibabel takes the absolute value, as the standard's sizes are
    patch(path, nib.Nifti1Header, pixdim=[1, -0.7, 0.9, -2.5, 0, 0, 0, 0])
    return path, reference


CORPUS.add("nifti/pixdim 0", refused(sform=0, qform=1, pixdim=[1, 0, 1, 1, 0, 0, 0, 0]),
           refused="singular|pixdim|affine")  # fmt: skip
CORPUS.add("nifti/quaternion too long", refused(sform=0, qform=1, quatern_b=1.0, quatern_c=1.0),
           refused="singular|quatern|affine")  # fmt: skip

CORPUS.add("nifti/meters", read_right(affine=affine_of() * 1e-3 + np.diag([0, 0, 0, 0.999]),
                                      xyzt_units=1))  # fmt: skip
CORPUS.add("nifti/micrometers", read_right(affine=affine_of(sizes=(650.0, 650.0, 2000.0)),
                                           xyzt_units=3))  # fmt: skip
CORPUS.add("nifti/units unknown", read_right(xyzt_units=0))
CORPUS.add("nifti/units mm and s", read_right(xyzt_units=10))

CORPUS.add("nifti/2D", read_right(values=pattern((5, 4))))
CORPUS.add("nifti/one slice", read_right(values=pattern((5, 4, 1))))
CORPUS.add("nifti/one slice along x", read_right(values=pattern((1, 4, 6))))
CORPUS.add("nifti/4D of one", read_right(values=pattern((5, 4, 3, 1))))
CORPUS.add("nifti/5D of ones", read_right(values=pattern((5, 4, 3, 1, 1))))
CORPUS.add("nifti/7D of ones", read_right(values=pattern((5, 4, 3, 1, 1, 1, 1))))
CORPUS.add("nifti/three contrasts", read_right(values=pattern((5, 4, 3, 3))))
CORPUS.add("nifti/vector of 5D", read_right(values=pattern((5, 4, 3, 1, 3))))
CORPUS.add("nifti/1D", refused(values=pattern((9,))), refused="axes")
CORPUS.add("nifti/0 slices", refused(dim=[3, 5, 4, 0, 1, 1, 1, 1]), refused="empty|shape")
CORPUS.add("nifti/dim negative", refused(dim=[3, 5, -4, 3, 1, 1, 1, 1]), refused="dimensions")
CORPUS.add("nifti/dim[0] of 9", refused(dim=[9, 5, 4, 3, 1, 1, 1, 1]), refused="dimensions")
CORPUS.add("nifti/dim too large", refused(dim=[3, 32000, 32000, 900, 1, 1, 1, 1]),
           refused="promises|truncated")  # fmt: skip

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
CORPUS.add("nifti/RGB", refused(values=np.zeros(SHAPE, RGB)), refused="colou?rs")
CORPUS.add("nifti/complex64", refused(values=pattern(SHAPE, "c8")), refused="complex")
CORPUS.add("nifti/complex128", refused(values=pattern(SHAPE, "c16")), refused="complex")


def with_odd_values(*odd: float) -> Any:
    values = pattern(SHAPE, "f4")
    values.flat[: len(odd)] = odd
    return values


CORPUS.add("nifti/NaN outside the body", read_right(values=with_odd_values(np.nan, np.nan)))
CORPUS.add("nifti/infinite values", read_right(values=with_odd_values(np.inf, -np.inf)))
CORPUS.add("nifti/denormal values", read_right(values=pattern(SHAPE, "f4") * np.float32(1e-42)))
CORPUS.add("nifti/values of 1e300", read_right(values=pattern(SHAPE, "f8") * 1e300))
CORPUS.add("nifti/constant", read_right(values=np.full(SHAPE, 7, "i2")))

CORPUS.add("nifti/gz", read_right(name="scan.nii.gz"))
CORPUS.add("nifti/suffix in capitals", read_right(name="SCAN.NII"))
CORPUS.add("nifti/blank and umlaut in its name", read_right(name="T1 größe (2).nii.gz"))


def packed(name: str, *, tail: bytes = b"", cut: int = 0, members: int = 1) -> Any:
    def make(folder: Path) -> tuple[Path, Reference]:
        plain = save(folder, name="plain.nii")
        content = plain.read_bytes()
        step = -(-len(content) // members)
        parts = [gzip.compress(content[k : k + step]) for k in range(0, len(content), step)]
        stored = b"".join(parts) + tail
        path = folder / name
        path.write_bytes(stored[: len(stored) - cut])
        return path, None if cut else by_nibabel(plain)

    return make


CORPUS.add("nifti/gz of two members", packed("scan.nii.gz", members=2))
CORPUS.add("nifti/gz, zeros behind it", packed("scan.nii.gz", tail=bytes(64)))
CORPUS.add("nifti/gzip named .nii", packed("scan.nii"))
CORPUS.add("nifti/gz truncated", packed("scan.nii.gz", cut=30), refused="truncated|damaged")


@CORPUS.add("nifti/plain named .nii.gz", refused="gzip")
def _not_packed(folder: Path) -> tuple[Path, None]:
    plain = save(folder)
    return plain.rename(folder / "scan.nii.gz"), None


@CORPUS.add("nifti/extension of 2 kB")
def _extended(folder: Path) -> tuple[Path, Reference]:
    image = nib.Nifti1Image(pattern(SHAPE), PLAIN)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 2000))
    nib.save(image, folder / "scan.nii")
    return folder / "scan.nii", by_nibabel(folder / "scan.nii")


def cut(length: int) -> Any:
    def make(folder: Path) -> tuple[Path, None]:
        path = save(folder)
        path.write_bytes(path.read_bytes()[:length])
        return path, None

    return make


CORPUS.add("nifti/empty file", cut(0), refused="empty")
CORPUS.add("nifti/truncated in the header", cut(200), refused="truncated|damaged")
CORPUS.add("nifti/truncated in the values", cut(400), refused="truncated")
CORPUS.add("nifti/magic damaged", refused(magic=b"xx"), refused="Analyze|not a NIfTI")
CORPUS.add("nifti/type unknown", refused(datatype=77), refused="type")
CORPUS.add("nifti/bitpix wrong", refused(bitpix=32), refused="bits")
CORPUS.add("nifti/vox_offset 1e9", refused(vox_offset=1e9), refused="promises|start|truncated")
CORPUS.add("nifti/vox_offset nan", refused(vox_offset=np.nan), refused="start")


@CORPUS.add("nifti/text named .nii", refused="not a NIfTI|damaged")
def _text(folder: Path) -> tuple[Path, None]:
    (folder / "notes.nii").write_text("patient notes, no image " * 40)
    return folder / "notes.nii", None


@CORPUS.add("nifti/a folder named .nii", refused="folder")
def _folder(folder: Path) -> tuple[Path, None]:
    (folder / "scan.nii").mkdir()
    return folder / "scan.nii", None


# Pairs and Analyze.
for order in "<>":
    end = {"<": "little", ">": "big"}[order]
    for suffix in (".hdr", ".img"):
        CORPUS.add(
            f"pair/{suffix} {end} endian",
            read_right(kind=nib.Nifti1Pair, order=order, name=f"scan{suffix}", qform=1),
        )
CORPUS.add("pair/oblique", read_right(kind=nib.Nifti1Pair, affine=affine_of(turned()),
                                      name="scan.img"))  # fmt: skip
CORPUS.add("pair/slope", read_right(kind=nib.Nifti1Pair, name="scan.hdr", scl_slope=2,
                                    scl_inter=1))  # fmt: skip
CORPUS.add("pair/gz", read_right(kind=nib.Nifti1Pair, name="scan.img.gz"))
CORPUS.add("pair/NIfTI-2", read_right(kind=nib.Nifti2Pair, name="scan.img"))


@CORPUS.add("pair/image missing", refused="missing")
def _half(folder: Path) -> tuple[Path, None]:
    save(folder, kind=nib.Nifti1Pair, name="scan.hdr")
    (folder / "scan.img").unlink()
    return folder / "scan.hdr", None


@CORPUS.add("pair/image truncated", refused="truncated|promises")
def _short(folder: Path) -> tuple[Path, None]:
    path = save(folder, kind=nib.Nifti1Pair, name="scan.hdr")
    image = folder / "scan.img"
    image.write_bytes(image.read_bytes()[:50])
    return path, None


def analyze(folder: Path) -> Path:
    image = nib.AnalyzeImage(pattern(SHAPE), None)
    image.header.set_zooms((0.7, 0.9, 2.5))
    nib.save(image, folder / "scan.img")
    return folder / "scan.img"


CORPUS.add("analyze/no place", lambda f: (analyze(f), None), refused="Analyze")
CORPUS.add(
    "analyze/spacing given",
    lambda f: (analyze(f), Reference.of(pattern(SHAPE), np.diag([0.7, 0.9, 2.5, 1.0]))),
    spacing=(2.5, 0.9, 0.7),
)
CORPUS.add(
    "analyze/identity assumed",
    lambda f: (analyze(f), by_nibabel(f / "scan.img")),
    warned="assumed",
    assume_identity=True,
)


# Masks.
def mask(values: Any, **options: Any) -> Any:
    def make(folder: Path) -> tuple[Path, Reference]:
        path = save(folder, np.asarray(values), name="mask.nii.gz", **options)
        loaded = nib.load(path)
        right = np.rint(np.asarray(loaded.dataobj))
        return path, Reference.of(right, loaded.affine)

    return make


LABELS = (pattern(SHAPE, "u1") % 4).astype("u1")
ONE_HOT = np.stack([k == LABELS for k in range(4)], axis=-1).astype("u1")
CORPUS.add("mask/uint8", mask(LABELS), reader="labels")
CORPUS.add("mask/float32", mask(LABELS.astype("f4")), reader="labels")
CORPUS.add("mask/float64 rounding noise", mask(LABELS * 1.0000001), reader="labels")
CORPUS.add("mask/int64", mask(LABELS.astype("i8") * 1000), reader="labels")
CORPUS.add("mask/negative values", mask(LABELS.astype("i2") - 1), reader="labels")
CORPUS.add("mask/oblique", mask(LABELS, affine=affine_of(turned())), reader="labels")


@CORPUS.add("mask/slope 1/255", reader="labels")
def _scaled_mask(folder: Path) -> tuple[Path, Reference]:
    path = save(folder, np.where(LABELS > 1, 255, 0).astype("u1"), name="mask.nii.gz")
    plain = gzip.decompress(path.read_bytes())
    bare = folder / "mask.nii"
    bare.write_bytes(plain)
    patch(bare, nib.Nifti1Header, scl_slope=1 / 255, scl_inter=0)
    return bare, Reference.of((LABELS > 1).astype("u1"), PLAIN)


@CORPUS.add("mask/one-hot", reader="labels")
def _one_hot(folder: Path) -> tuple[Path, Reference]:
    return save(folder, ONE_HOT, name="mask.nii.gz"), Reference.of(LABELS, PLAIN)


@CORPUS.add("mask/one-hot that overlaps", reader="labels", refused="overlap")
def _overlap(folder: Path) -> tuple[Path, None]:
    values = ONE_HOT.copy()
    values[0, 0, 0] = 1
    return save(folder, values, name="mask.nii.gz"), None


CORPUS.add("mask/probabilities", lambda f: (save(f, LABELS / 7, name="mask.nii.gz"), None),
           reader="labels", refused="not integers|probability")  # fmt: skip
CORPUS.add("mask/NaN", lambda f: (save(f, with_odd_values(np.nan), name="mask.nii.gz"), None),
           reader="labels", refused="finite|not integers")  # fmt: skip
