"""Many compressed fields in one file, ``*.medgsz``: shared tables, random access by name.

Fields of one kind (the same columns and classes) share the model of their columns. The coder of
each begins with what it has learned from one of them, the *primer*, which a reader decodes first.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from napari_medgs._util.records import checked
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._limits import check_file, check_memory
from napari_medgs.io.codec.chunks import Placed
from napari_medgs.io.codec.container import (
    LARGEST,
    Header,
    Part,
    unpack_record,
)
from napari_medgs.io.codec.decoding import coded_chunks, read_part
from napari_medgs.io.codec.encoding import code_part
from napari_medgs.io.codec.files import explained
from napari_medgs.io.codec.model import Model
from napari_medgs.io.codec.region import Box
from napari_medgs.io.codec.symbols import teach
from napari_medgs.io.codec.tables import Tables

SUFFIX = ".medgsz"
MAGIC = b"\x89MGZ\r\n\x1a\n"
VERSIONS = (1, 2)
"""What is read: 2 has fields that a learned codec has coded, and is written for these only."""
MOST_GAUSSIANS = 20_000_000
_KIND = "cohort of fields"
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_name(name: str) -> str:
    """Return a name that is a plain file name on every system.

    Raises
    ------
    ParameterError
        When it is not: it could name a file elsewhere.
    """
    bad = (
        not 0 < len(name.encode()) <= 200
        or _FORBIDDEN.search(name)
        or name[0] in ". "
        or name[-1] in ". "
        or _RESERVED.fullmatch(name)
    )
    if bad:
        raise ParameterError(f"{name[:80]!r} is no safe name of a file.")
    return name


@dataclass(frozen=True)
class CodedField:
    """What a learned codec has made of a field; only that codec knows what the bytes mean.

    Attributes
    ----------
    info : FieldInfo
    gaussians : int
    background : tuple of float
    codec : str
        Fingerprint of the codec.
    data : bytes
    """

    info: FieldInfo
    gaussians: int
    background: tuple[float, ...]
    codec: str
    data: bytes


@dataclass(frozen=True)
class _Entry:
    """One field of an archive: what the directory says, and where its bytes begin."""

    record: dict[str, Any]
    offset: int
    gaussians: int


class FieldArchive:
    """A cohort of fields in one file.

    Parameters
    ----------
    path : str or Path
        Ends in ``.medgsz``.

    Raises
    ------
    FileError, FormatVersionError
        When it is missing, damaged, no cohort, or of another version.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.io.codec.archive import FieldArchive
    >>> from napari_medgs.io.codec.archive_writer import write_archive
    >>> from napari_medgs.io.codec.encoding import encode
    >>> image = np.random.default_rng(0).random((4, 8, 8), np.float32)
    >>> field = mg.fit(mg.Volume.from_array(image), mg.FitParams(gaussians=20)).field
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_archive(Path(folder) / "a.medgsz", {"case 1": encode(field).data})
    ...     archive = FieldArchive(path)
    ...     archive.names, len(archive.load("case 1")) == len(field)
    (('case 1',), True)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_file(path, "the file of a cohort")
        self._taught: dict[int, Tables] = {}
        with explained(self.path, _KIND), self.path.open("rb") as opened:
            size = self.path.stat().st_size
            record, self.header_bytes = unpack_record(opened, size, MAGIC, _KIND, VERSIONS)
            entries = checked(list[dict[str, Any]], _get(record, "fields"), "fields")
            self._groups = checked(list[dict[str, Any]], _get(record, "groups"), "groups")
            self._schemes = checked(list[dict[str, Any]], _get(record, "schemes"), "schemes")
            self._entries: dict[str, _Entry] = {}
            offset = self.header_bytes
            folded = set()
            for entry in entries:
                name = check_name(checked(str, entry.get("name"), "name"))
                length = checked(int, entry.get("bytes"), "bytes")
                if length < 0 or name.casefold() in folded:
                    raise ParameterError("Two of its fields have one name, or a wrong size.")
                folded.add(name.casefold())
                self._entries[name] = _Entry(entry, offset, _gaussians_of(entry))
                offset += length
            if offset != size:
                raise ValueError(f"it has {size:,} bytes where its header promises {offset:,}")
            self._primers = [self._primer_name(group) for group in self._groups]

    def _primer_name(self, group: dict[str, Any]) -> str:
        name = checked(str, group.get("primer"), "primer")
        if name not in self._entries:
            raise ParameterError("A field that others need is not in it.")
        return name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields, in the order of the file."""
        return tuple(self._entries)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every field."""
        return {name: int(entry.record["bytes"]) for name, entry in self._entries.items()}

    def gaussians(self) -> dict[str, int]:
        """Return the number of Gaussians of every field, as the directory has it."""
        return {name: entry.gaussians for name, entry in self._entries.items()}

    @property
    def codec(self) -> str | None:
        """Fingerprint of the learned codec that has coded the fields, if one has."""
        for entry in self._entries.values():
            if _is_latent(entry.record):
                return str(entry.record["codec"])
        return None

    def coded(self, name: str) -> CodedField:
        """Read what a learned codec has made of one field.

        Parameters
        ----------
        name : str

        Raises
        ------
        FileError
            When there is no such field, no learned codec has coded it, or it is damaged.
        """
        record = self._entry(name).record
        if not _is_latent(record):
            raise FileError(f"{self.path}: no learned codec has coded {name!r}; leave it out.")
        with explained(self.path, _KIND), self.path.open("rb") as opened:
            opened.seek(self._entries[name].offset)
            data = opened.read(record["bytes"])
            if zlib.crc32(data) != checked(int, record.get("checksum"), "checksum"):
                raise ValueError("the checksum of a field is another")
            info = FieldInfo.from_dict(record.get("info"))
            background = checked(tuple[float, ...], record.get("background"), "background")
            if len(background) != info.channels or any(abs(b) > LARGEST for b in background):
                raise ParameterError("Its background is out of range, or of other channels.")
            count = self._entries[name].gaussians
            return CodedField(info, count, background, record["codec"], data)

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            known = ", ".join(list(self._entries)[:8])
            raise FileError(f"{self.path}: holds no field {name!r}; it has {known}.")
        return self._entries[name]

    def load(self, name: str, *, box: Box | None = None) -> GaussianField:
        """Read one field.

        Parameters
        ----------
        name : str
        box : ((z, y, x), (z, y, x)), optional
            See :func:`napari_medgs.load_field`.

        Raises
        ------
        FileError
            When there is no such field, or it is damaged.
        """
        with explained(self.path, _KIND), self.path.open("rb") as opened:
            header, group = self._header(name)
            tables = self._tables(opened, name, group)
            return read_part(
                opened,
                header,
                box=box,
                tables=tables,
                check_memory=lambda needed: check_memory(self.path, needed),
            )

    def extract(self, name: str) -> bytes:
        """Return one field as a file of its own: the bytes that were packed, without preview.

        Parameters
        ----------
        name : str

        Raises
        ------
        FileError
            When there is no such field, or it is damaged.
        """
        with explained(self.path, _KIND), self.path.open("rb") as opened:
            header, group = self._header(name)
            info = self._entries[name].record["info"]
            if header.main.scheme is None:
                opened.seek(header.length)
                payload = opened.read(header.main.length)
                if _checksums(payload, header.main) != [c.checksum for c in header.main.chunks]:
                    raise ValueError("the checksum of a chunk is another")
                return Header(header.info, header.main).to_bytes(info) + payload
            check_memory(self.path, 24 * header.main.gaussians * (20 + header.info.channels))
            chunks = coded_chunks(opened, header, self._tables(opened, name, group))
            part, payload = recoded(chunks, header)
            return Header(header.info, part).to_bytes(info) + payload

    def _header(self, name: str) -> tuple[Header, int]:
        """Return one field's header, as if it stood alone, and its group; -1 for none."""
        entry = self._entry(name)
        record, group = dict(entry.record), -1
        if _is_latent(record):
            raise FileError(
                f"{self.path}: a learned codec has coded {name!r}; unpack --model reads it."
            )
        if "group" in record:
            group = checked(int, record.get("group"), "group")
            scheme = checked(int, record["scheme"], "scheme")
            if not (0 <= group < len(self._groups) and 0 <= scheme < len(self._schemes)):
                raise ParameterError("The directory is damaged.")
            shared = self._groups[group]
            record.update(
                scheme=self._schemes[scheme],
                coefficients=shared.get("coefficients"),
                starts=shared.get("starts"),
            )
        info = FieldInfo.from_dict(record.get("info"))
        part = Part.from_record(record, info)
        if part.length != entry.record["bytes"]:
            raise ParameterError("A field has another size than the directory says.")
        return Header(info, part, length=entry.offset), group

    def _tables(self, opened: IO[bytes], name: str, group: int) -> Tables | None:
        """Return what the coder knows before a field: what its primer has taught."""
        if group < 0 or name == self._primers[group]:
            return None
        if group not in self._taught:
            header, own = self._header(self._primers[group])
            if own != group or header.main.scheme is None or header.main.model is None:
                raise ParameterError("The directory is damaged.")
            check_memory(self.path, 24 * header.main.gaussians * (20 + header.info.channels))
            chunks = coded_chunks(opened, header)
            pairs = [(chunk.integers, chunk.size) for chunk in chunks]
            if not pairs:
                raise ParameterError("A field that others need is empty.")
            self._taught[group] = teach(pairs, header.main.scheme, header.main.model)
        return self._taught[group]


def _checksums(payload: bytes, part: Part) -> list[int]:
    opened = io.BytesIO(payload)
    return [zlib.crc32(opened.read(chunk.length)) for chunk in part.chunks]


def _get(record: Any, key: str) -> Any:
    return record.get(key) if isinstance(record, Mapping) else None


def recoded(
    chunks: list[Placed],
    header: Header,
    model: Model | None = None,
    tables: Tables | None = None,
) -> tuple[Part, bytes]:
    """Return the chunks of a field coded with another model."""
    assert header.main.scheme is not None
    info = replace(header.info, degree=header.main.degree)
    part, payload, _, _ = code_part(
        chunks, header.main.scheme, header.main.background, info, model, tables
    )
    return part, payload


def _gaussians_of(record: Mapping[str, Any]) -> int:
    """Return how many Gaussians a field has, as the directory says."""
    if not _is_latent(record):
        rows = checked(list[tuple[int, ...]], record.get("chunks"), "chunks")
        return sum(row[0] for row in rows if row)
    checked(str, record.get("codec"), "codec")
    count = checked(int, record.get("gaussians"), "gaussians")
    if not 0 < count <= MOST_GAUSSIANS:
        raise ParameterError("A field has an impossible number of Gaussians.")
    return count


def _is_latent(record: Any) -> bool:
    return isinstance(record, Mapping) and record.get("form") == "latents"
