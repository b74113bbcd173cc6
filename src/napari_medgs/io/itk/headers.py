"""Headers of NRRD and GIPL files, checked against the size of the stored data.

SimpleITK decodes the files. What it does not report is checked here first: sizes that the file
cannot hold, and truncated GIPL data.
"""

from __future__ import annotations

import gzip
import math
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from napari_medgs.errors import FileError
from napari_medgs.io._content import unlike
from napari_medgs.io._limits import check_claim, check_file

LARGEST_NUMBER = 1e9  # millimeters, of a place or a voxel
LONGEST_HEADER = 4 * 2**20
_CHUNK = 2**20

_NRRD_BYTES = {
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t",
        "ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t",
        "float"),
    8: ("longlong", "long long", "long long int", "signed long long", "signed long long int",
        "int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int",
        "uint64", "uint64_t", "double"),
}  # fmt: skip
_GIPL_BYTES = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
_GIPL_MAGIC = (0xEFFFE9B0, 0x2AE389B8)


@dataclass(frozen=True)
class TextHeader:
    """The fields of an NRRD or MetaImage header.

    Attributes
    ----------
    fields : mapping of str to str
        NRRD field names in lower case; MetaImage names as they are.
    metadata : mapping of str to str
        The ``key:=value`` lines of NRRD, such as the segments of ``.seg.nrrd``.
    offset : int
        First byte after the header.
    """

    fields: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    offset: int = 0


def read_nrrd_header(path: str | Path) -> TextHeader:
    """Read the header of an NRRD file (``.nrrd``, ``.nhdr``).

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    TextHeader

    Raises
    ------
    FileError
        When the file is missing or empty, or no NRRD file.

    References
    ----------
    https://teem.sourceforge.net/nrrd/format.html
    """
    path = check_file(path, "an NRRD file")
    fields: dict[str, str] = {}
    metadata: dict[str, str] = {}
    with path.open("rb") as opened:
        if not opened.readline(64).startswith(b"NRRD"):
            raise FileError(unlike(path, "an NRRD file"))
        while True:
            raw = opened.readline(LONGEST_HEADER)
            if not raw.strip() or opened.tell() > LONGEST_HEADER:
                break
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            if line.startswith("#"):
                continue
            name, mark, value = line.partition(":=")
            plain, colon, rest = line.partition(": ")
            if mark and (not colon or len(name) < len(plain)):
                metadata[name] = value
            elif colon:
                fields[plain.strip().lower()] = rest.strip()
        return TextHeader(fields, metadata, opened.tell())


def check_nrrd(path: Path) -> TextHeader:
    """Check an NRRD file's sizes against its data; return the header.

    Raises
    ------
    FileError
        When the header is impossible, or the data are missing or too short.
    """
    header = read_nrrd_header(path)
    fields = header.fields
    sizes = sizes_of(path, fields.get("sizes", ""))
    kind = fields.get("type", "").lower()
    itemsize = next((n for n, names in _NRRD_BYTES.items() if kind in names), None)
    if itemsize is None:
        raise FileError(f"{path}: values of NRRD type '{brief(kind)}' cannot be read.")
    for field_name in ("space directions", "space origin", "spacings"):
        _check_numbers(path, field_name, fields.get(field_name, ""))
    encoding = fields.get("encoding", "").lower()
    if encoding in ("bzip2", "bz2"):
        raise FileError(f"{path}: its bzip2 encoding cannot be read; save it with gzip.")
    if encoding in ("ascii", "txt", "text"):
        itemsize = 1  # at least a digit per value
    name = fields.get("data file", fields.get("datafile"))
    stored = path.stat().st_size - header.offset
    if name is not None:
        if name.upper().startswith("LIST") or "%" in name:
            return header  # many files: the decoder counts them
        stored = data_file(path, name).stat().st_size
    deflated = encoding in ("gzip", "gz")
    check_claim(path, math.prod(sizes) * itemsize, stored, deflated=deflated)
    return header


def _check_numbers(path: Path, name: str, text: str) -> None:
    """Refuse a field of numbers too large for places and sizes; words such as "none" may stand."""
    for word in text.replace("(", " ").replace(")", " ").replace(",", " ").split():
        try:
            large = abs(float(word)) >= LARGEST_NUMBER
        except ValueError:
            large = False
        if large:  # ITK does not end where it makes axes of such numbers orthogonal
            raise FileError(f"{path}: damaged header: its {name} are '{brief(text)}'.")


@contextmanager
def time_as_list(path: Path, header: TextHeader | None) -> Iterator[Path]:
    """Give a file in which an axis of time is a list, which is the kind that ITK reads.

    ITK refuses four axes of space and time in a space of three. The temporary header refers to
    the data of the file itself.

    Parameters
    ----------
    path : Path
    header : TextHeader or None
        Of an NRRD file.

    Yields
    ------
    Path
        The file itself where its header has no such axis.
    """
    fields = {} if header is None else header.fields
    kinds = fields.get("kinds", "").replace('"', "").split()
    if header is None or "time" not in [kind.lower() for kind in kinds]:
        yield path
        return
    with path.open("rb") as opened:
        lines = opened.read(header.offset).decode("utf-8", "replace").splitlines()
    own = ("kinds:", "data file:", "datafile:", "line skip:", "lineskip:")
    kept = [line for line in lines if line.strip() and not line.lower().startswith(own)]
    name = fields.get("data file", fields.get("datafile"))
    skipped = len(lines) if name is None else 0
    if name is not None and fields.get("line skip", "0").isdecimal():
        skipped = int(fields.get("line skip", "0"))
    listed = ["list" if kind.lower() == "time" else kind for kind in kinds]
    kept += [f"kinds: {' '.join(listed)}", f"line skip: {skipped}"]
    kept.append(f"data file: {path.resolve() if name is None else (path.parent / name).resolve()}")
    with tempfile.TemporaryDirectory() as folder:
        detached = Path(folder) / "time.nhdr"
        detached.write_text("\n".join(kept) + "\n", encoding="utf-8")
        yield detached


def check_gipl(path: Path) -> tuple[int, ...]:
    """Check a GIPL file (``.gipl``, ``.gipl.gz``) to its end; return its sizes.

    Raises
    ------
    FileError
        When it is no GIPL file, or truncated or damaged.
    """
    path = check_file(path, "a GIPL file")
    opener: Callable[..., gzip.GzipFile] = gzip.open if path.name.lower().endswith(".gz") else open  # type: ignore[assignment]
    try:
        with opener(path, "rb") as opened:
            start = opened.read(256)
            if len(start) < 256 or int.from_bytes(start[252:256], "big") not in _GIPL_MAGIC:
                raise FileError(unlike(path, "a GIPL file"))
            dims = [int.from_bytes(start[k : k + 2], "big") for k in (0, 2, 4, 6)]
            itemsize = _GIPL_BYTES.get(int.from_bytes(start[8:10], "big"))
            if itemsize is None or 0 in dims[:2]:
                raise FileError(f"{path}: damaged header: no type or size that GIPL knows.")
            sizes = tuple(max(1, n) for n in dims)
            claimed, found = math.prod(sizes) * itemsize, 0
            check_claim(path, claimed, path.stat().st_size, deflated=opener is gzip.open)
            while found <= claimed and (chunk := opened.read(_CHUNK)):
                found += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path}: truncated or damaged ({error}).") from error
    if found < claimed:
        raise FileError(f"{path}: truncated: it holds {found} of {claimed} bytes.")
    return sizes


def sizes_of(path: Path, text: str) -> tuple[int, ...]:
    """Return positive integers of a header field."""
    words = text.split()
    if not words or not all(w.isascii() and w.isdecimal() and len(w) < 16 for w in words):
        raise FileError(f"{path}: damaged header: its sizes are '{brief(text)}'.")
    sizes = tuple(map(int, words))
    if 0 in sizes:
        raise FileError(f"{path}: the image is empty: its sizes are {sizes}.")
    return sizes


def data_file(path: Path, name: str) -> Path:
    """Return the separate file that holds a header's data."""
    data = path.parent / name
    try:
        return check_file(data, "a data file")
    except (FileError, ValueError) as error:
        raise FileError(
            f"{path}: its data file '{brief(name)}' is missing or empty; keep both files in one "
            "folder."
        ) from error


def brief(text: str) -> str:
    """Return at most 40 printable characters of a header's text."""
    return "".join(c for c in text if c.isprintable())[:40]
