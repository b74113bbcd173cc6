"""Many compressed fields in one file, ``*.medgsz``: shared tables, random access by name.

Fields of one kind (the same columns and classes) share the model of their columns. The coder of
each begins with what it has learned from one of them, the *primer*, which a reader decodes first.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from napari_medgs._util.records import checked
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io._limits import check_file, check_memory
from napari_medgs.io.codec.chunks import Placed
from napari_medgs.io.codec.container import (
    Header,
    Part,
    pack_record,
    read_header,
    unpack_record,
)
from napari_medgs.io.codec.decoding import coded_chunks, read_part
from napari_medgs.io.codec.encoding import code_part
from napari_medgs.io.codec.files import explained
from napari_medgs.io.codec.model import Model, learn
from napari_medgs.io.codec.region import Box
from napari_medgs.io.codec.symbols import teach
from napari_medgs.io.codec.tables import Tables

SUFFIX = ".medgsz"
MAGIC = b"\x89MGZ\r\n\x1a\n"
MOST_TAUGHT = 20_000
"""Gaussians of a primer, if there is one of so few: a reader decodes it before any other."""
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
class _Entry:
    """One field of an archive: what the directory says, and where its bytes begin."""

    record: dict[str, Any]
    offset: int


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
    >>> from napari_medgs.io.codec.archive import FieldArchive, write_archive
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
            record, self.header_bytes = unpack_record(opened, size, MAGIC, _KIND)
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
                self._entries[name] = _Entry(entry, offset)
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
        return {
            name: sum(int(row[0]) for row in entry.record.get("chunks", []))
            for name, entry in self._entries.items()
        }

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
            part, payload = _recoded(chunks, header)
            return Header(header.info, part).to_bytes(info) + payload

    def _header(self, name: str) -> tuple[Header, int]:
        """Return one field's header, as if it stood alone, and its group; -1 for none."""
        if name not in self._entries:
            known = ", ".join(list(self._entries)[:8])
            raise FileError(f"{self.path}: holds no field {name!r}; it has {known}.")
        entry = self._entries[name]
        record, group = dict(entry.record), -1
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


def _recoded(
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


def write_archive(path: str | Path, fields: Mapping[str, bytes]) -> Path:
    """Write compressed fields into one file.

    Parameters
    ----------
    path : str or Path
        Ends in ``.medgsz``.
    fields : mapping of str to bytes
        Contents of ``.medgs`` files by name. Previews are left out; all else comes back bit for
        bit.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix, there is nothing to write, or a field is damaged.
    ParameterError
        When a name cannot be that of a file on every system, or two differ in case only.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIX):
        raise FileError(f"{path}: the file name of a cohort must end in {SUFFIX}.")
    if not fields:
        raise FileError(f"{path}: there are no fields to write.")
    names = sorted(fields)
    if len({check_name(name).casefold() for name in names}) < len(names):
        raise ParameterError("Two fields have names that differ in their case only; rename one.")
    opened = {name: _opened(name, fields[name]) for name in names}
    groups = _grouped(names, opened)
    entries: dict[str, dict[str, Any]] = {}
    payloads: dict[str, bytes] = {}
    schemes: list[dict[str, Any]] = []
    shared: list[dict[str, Any]] = []
    for members in groups.values():
        chunks = {name: coded_chunks(*opened[name][:2]) for name in members}
        model = learn([chunk.integers for name in members for chunk in chunks[name]])
        primer = _primer(members, opened)
        scheme = opened[primer][1].main.scheme
        assert scheme is not None
        pairs = [(chunk.integers, chunk.size) for chunk in chunks[primer]]
        tables = teach(pairs, scheme, model) if len(members) > 1 else None
        for name in members:
            known = None if name == primer else tables
            part, payloads[name] = _recoded(chunks[name], opened[name][1], model, known)
            record = part.to_record()
            own = record.pop("scheme")
            if own not in schemes:
                schemes.append(own)
            rows, starts = record.pop("coefficients"), record.pop("starts")
            entries[name] = {**record, "group": len(shared), "scheme": schemes.index(own)}
        shared.append({"primer": primer, "coefficients": rows, "starts": starts})
    for name in names:
        if name not in entries:
            data, header = opened[name][:2]
            data.seek(header.offset(preview=False))
            payloads[name] = data.read(header.main.length)
            entries[name] = header.main.to_record()
    directory = [
        {"name": name, "bytes": len(payloads[name]), "info": opened[name][2], **entries[name]}
        for name in names
    ]
    start = pack_record({"groups": shared, "schemes": schemes, "fields": directory}, MAGIC)
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        out.write(start)
        for name in names:
            out.write(payloads[name])
    return path


def _opened(name: str, data: bytes) -> tuple[IO[bytes], Header, Any]:
    """Return a field's file, its header, and what that says of the field."""
    opened = io.BytesIO(data)
    with explained(name):
        header = read_header(opened, len(data))
    opened.seek(0)
    record = unpack_record(opened, len(data))[0]
    return opened, header, record["info"]


def _grouped(
    names: Iterable[str], opened: Mapping[str, tuple[IO[bytes], Header, Any]]
) -> dict[Any, list[str]]:
    """Return the names of coded fields whose columns mean the same."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        part, info = opened[name][1].main, opened[name][1].info
        if part.scheme is not None and part.gaussians:
            key = (part.scheme.columns, len(info.class_names))
            groups.setdefault(key, []).append(name)
    return groups


def _primer(members: list[str], opened: Mapping[str, tuple[IO[bytes], Header, Any]]) -> str:
    """Return the field that teaches the others: the largest that is decoded quickly."""
    sizes = {name: opened[name][1].main.gaussians for name in members}
    quick = [name for name in members if sizes[name] <= MOST_TAUGHT]
    if quick:
        return max(quick, key=lambda name: sizes[name])
    return min(members, key=lambda name: sizes[name])
