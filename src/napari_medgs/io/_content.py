"""What a file holds, by its first bytes: for messages about files of a wrong name."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

_STARTS = (
    (b"\x1f\x8b", "a gzip file (.gz)"),
    (b"NRRD", "an NRRD file (.nrrd)"),
    (b"ObjectType = ", "a MetaImage file (.mha)"),
    (b"NDims = ", "a MetaImage file (.mha)"),
    (b"\x89PNG", "a PNG image (.png)"),
    (b"\xff\xd8\xff", "a JPEG image (.jpg)"),
    (b"II*\0", "a TIFF image (.tif)"),
    (b"MM\0*", "a TIFF image (.tif)"),
    (b"PK\x03\x04", "a zip archive (.zip, .npz)"),
    (b"BZh", "a bzip2 file (.bz2)"),
    (b"\xfd7zXZ", "an xz file (.xz)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file (.zst)"),
    (b"\x89HDF", "an HDF5 file (.h5)"),
    (b"\x89MGS", "a compressed field (.medgs)"),
    (b"\x89MGZ", "a cohort of fields (.medgsz)"),
    (b"%PDF", "a PDF document"),
    (b"<!DOCTYPE html", "a web page, as a failed download leaves it"),
    (b"<html", "a web page, as a failed download leaves it"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself"),
)
_FIRST = {
    "field": "run fit on an image first, which writes a field",
    "compressed field": "run fit on an image and compress on its field first",
    "cohort of fields": "run fit-many on a folder of images and pack on its fields first",
}
_NIFTI = {348: (344, b"n+1"), 540: (4, b"n+2")}


def known_content(path: str | Path) -> str | None:
    """Return what kind of file this is, by its content, or None.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    str or None
        Such as "an NRRD file (.nrrd)"; None for what is not known, or cannot be read.
    """
    start = _start(Path(path))
    if start[:2] == b"\x1f\x8b":
        inner = _start(Path(path), inflate=True)
        return "a NIfTI image (.nii.gz)" if _is_nifti(inner) else _STARTS[0][1]
    if _is_nifti(start):
        return "a NIfTI image (.nii)"
    if start[128:132] == b"DICM":
        return "a DICOM file (.dcm)"
    return next((name for magic, name in _STARTS if start.startswith(magic)), None)


def wrong_content(path: str | Path, kind: str, fault: object) -> str:
    """Return what to say of a file that cannot be read as one of a kind of our own.

    Parameters
    ----------
    path : str or Path
    kind : str
        Such as "field".
    fault : object
        What is wrong, for a file that is not known as something else.

    Returns
    -------
    str
    """
    content = known_content(path)
    if content is None or content.startswith(f"a {kind}"):
        return f"{path}: damaged, or no {kind} ({fault})."
    advice = _FIRST.get(kind, f"give the file of a {kind}")
    return f"{path}: is {content}, not a {kind}; {advice}."


def unlike(path: str | Path, kind: str) -> str:
    """Return what to say of a file whose header is not that of its kind.

    Parameters
    ----------
    path : str or Path
    kind : str
        With its article, such as "an NRRD file".

    Returns
    -------
    str
    """
    content = known_content(path)
    if content in (None, _STARTS[0][1]) or str(content).startswith(kind):
        return f"{path}: not {kind}, or its header is damaged."
    return f"{path}: not {kind} but {content}; rename it."


def _start(path: Path, inflate: bool = False) -> bytes:
    if not path.is_file():
        return b""
    try:
        with gzip.open(path, "rb") if inflate else path.open("rb") as opened:
            return opened.read(352)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(start: bytes) -> bool:
    for order in ("little", "big"):
        place, magic = _NIFTI.get(int.from_bytes(start[:4], order), (0, b"\0"))
        if start[place : place + 3] == magic:
            return True
    return False
