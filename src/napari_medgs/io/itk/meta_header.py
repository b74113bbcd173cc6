"""Headers of MetaImage files (``.mha``, ``.mhd``), checked in full before ITK sees them.

ITK's parser ends the whole process on impossible numbers of axes, prints to the terminal on
others, and does not notice data whose checksum is wrong.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from napari_medgs.errors import FileError
from napari_medgs.io._content import unlike
from napari_medgs.io._limits import check_claim, check_file
from napari_medgs.io.itk.headers import (
    LARGEST_NUMBER,
    LONGEST_HEADER,
    TextHeader,
    brief,
    data_file,
    sizes_of,
)

_CHUNK = 2**20
_LONGEST_LINE = 4000  # characters; ITK keeps values in arrays of a fixed size
_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
_FLAGS = ("BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData")
_WHOLE = ("NDims", "ElementNumberOfChannels", "HeaderSize", "CompressedDataSize", "ID", "ParentID")
_PER_AXIS = ("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation")
_MATRICES = ("TransformMatrix", "Rotation", "Orientation")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


def read_meta_header(path: str | Path) -> TextHeader:
    """Read the header of a MetaImage file (``.mha``, ``.mhd``).

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    TextHeader

    Raises
    ------
    FileError
        When the file is missing or empty, or no MetaImage file.

    References
    ----------
    https://itk.org/Wiki/ITK/MetaIO/Documentation
    """
    path = check_file(path, "a MetaImage file")
    fields: dict[str, str] = {}
    with path.open("rb") as opened:
        while "ElementDataFile" not in fields:
            raw = opened.readline(LONGEST_HEADER)
            if not raw or b"=" not in raw or opened.tell() > LONGEST_HEADER:
                raise FileError(unlike(path, "a MetaImage file"))
            name, _, value = raw.decode("utf-8", "replace").partition("=")
            name = name.strip()
            if not re.fullmatch(r"[\w.,|()\[\] -]{1,200}", name) or len(value) > _LONGEST_LINE:
                if not fields:
                    raise FileError(unlike(path, "a MetaImage file"))
                raise FileError(f"{path}: damaged header: '{brief(name)}' is no entry.")
            if name in fields:
                raise FileError(f"{path}: damaged header: it has two entries '{name}'.")
            fields[name] = value.strip()
        return TextHeader(fields, offset=opened.tell())


def check_meta(path: Path) -> TextHeader:
    """Check a MetaImage file's entries, sizes and checksum; return the header.

    Raises
    ------
    FileError
        When the header is impossible, or the data are missing, too short or damaged.
    """
    header = read_meta_header(path)
    fields = header.fields
    _check_entries(path, fields)
    sizes = sizes_of(path, fields.get("DimSize", ""))
    itemsize = _BYTES.get(fields.get("ElementType", "").removesuffix("_ARRAY"))
    if itemsize is None:
        kind = brief(fields.get("ElementType", ""))
        raise FileError(f"{path}: values of MetaImage type '{kind}' cannot be read.")
    if not _flag(fields, "BinaryData", default=True):
        itemsize = 2  # at least a digit and a blank per value
    channels = sizes_of(path, fields.get("ElementNumberOfChannels", "1"))[0]
    claimed = math.prod(sizes) * channels * itemsize
    deflated = _flag(fields, "CompressedData", default=False)
    name = fields["ElementDataFile"]
    if name.upper().startswith("LIST") or "%" in name:
        return header
    local = name.upper() == "LOCAL"
    data = path if local else data_file(path, name)
    skip = header.offset if local else max(int(fields.get("HeaderSize", 0)), 0)
    if local and int(fields.get("HeaderSize", 0)) > 0:
        raise FileError(f"{path}: damaged header: HeaderSize is for data in a file of their own.")
    stored = data.stat().st_size - skip
    check_claim(path, claimed, stored, deflated=deflated)
    if deflated:
        used = _check_deflated(path, data, skip, claimed)
        named = fields.get("CompressedDataSize", "")  # without it ITK reads wrong values
        if not named or not used <= int(named) <= stored:
            raise _damaged(path, "CompressedDataSize", named or "missing")
        if not _flag(fields, "BinaryData", default=True):
            raise _damaged(path, "BinaryData", fields["BinaryData"])
    elif not _flag(fields, "BinaryData", default=True):
        _check_words(path, data, skip, math.prod(sizes) * channels)
    return header


def _check_entries(path: Path, fields: Mapping[str, str]) -> None:
    """Refuse entries that are not of the kind and number that their names say."""
    for name in _FLAGS:
        if name in fields and fields[name].lower() not in ("true", "false", "0", "1"):
            raise _damaged(path, name, fields[name])
    for name in _WHOLE:
        if name in fields and not re.fullmatch(r"-?\d{1,15}", fields[name]):
            raise _damaged(path, name, fields[name])
    if fields.get("ObjectType", "Image") != "Image":
        raise FileError(f"{path}: holds a MetaIO {brief(fields['ObjectType'])}, no image.")
    axes = int(fields.get("NDims", 0))
    if not 1 <= axes <= 10 or len(fields.get("DimSize", "").split()) != axes:
        raise _damaged(path, "NDims", fields.get("NDims", ""))
    for names, count in ((_PER_AXIS, axes), (_MATRICES, axes * axes)):
        for name in names:
            words = fields.get(name, "0 " * count).split()
            if len(words) != count or not all(_NUMBER.fullmatch(w) for w in words):
                raise _damaged(path, name, fields[name])
            # ITK does not end where it makes a matrix of such numbers orthogonal.
            if not all(abs(float(w)) < LARGEST_NUMBER for w in words):
                raise _damaged(path, name, fields[name])
    for name in ("ElementSpacing", "ElementSize"):
        if name in fields and not all(float(w) > 0 for w in fields[name].split()):
            raise _damaged(path, name, fields[name])


def _damaged(path: Path, name: str, value: str) -> FileError:
    return FileError(f"{path}: damaged header: {name} is '{brief(value)}'.")


def _flag(fields: Mapping[str, str], name: str, *, default: bool) -> bool:
    return str(fields.get(name, default)).lower() in ("true", "1")


def _check_deflated(path: Path, data: Path, skip: int, claimed: int) -> int:
    """Inflate a zlib stream to its checksum, keeping nothing; return its length."""
    inflate, found, used = zlib.decompressobj(), 0, 0
    try:
        with data.open("rb") as opened:
            opened.seek(skip)
            while not inflate.eof and found <= claimed:
                chunk = inflate.unconsumed_tail
                if not chunk:
                    chunk = opened.read(_CHUNK)
                    used += len(chunk)
                if not chunk:
                    break
                found += len(inflate.decompress(chunk, 16 * _CHUNK))
    except zlib.error as error:
        raise FileError(f"{path}: truncated or damaged ({error}).") from error
    if found != claimed or not inflate.eof:
        raise FileError(
            f"{path}: truncated or damaged: its data do not have the {claimed} bytes that its "
            "header promises."
        )
    return used - len(inflate.unused_data)


def _check_words(path: Path, data: Path, skip: int, count: int) -> None:
    """Refuse text that does not hold as many numbers as voxels."""
    words = data.read_bytes()[skip:].split()
    if len(words) < count or not all(
        _NUMBER.fullmatch(w.decode("latin-1")) for w in words[:count]
    ):
        raise FileError(f"{path}: truncated or damaged: its data are not {count} numbers.")
