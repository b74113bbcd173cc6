"""Many compressed fields to one file, ``*.medgsz``, for
:class:`~napari_medgs.io.codec.archive.FieldArchive`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.codec.archive import MAGIC, SUFFIX, CodedField, check_name, recoded
from napari_medgs.io.codec.container import Header, pack_record, read_header, unpack_record
from napari_medgs.io.codec.decoding import coded_chunks
from napari_medgs.io.codec.encoding import plain_record
from napari_medgs.io.codec.files import explained
from napari_medgs.io.codec.model import learn
from napari_medgs.io.codec.symbols import teach

MOST_TAUGHT = 20_000
"""Gaussians of a primer, if there is one of so few: a reader decodes it before any other."""


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
    path, names = _checked(path, fields)
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
            part, payloads[name] = recoded(chunks[name], opened[name][1], model, known)
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
    return _written(path, start, [payloads[name] for name in names])


def write_coded_archive(path: str | Path, fields: Mapping[str, CodedField]) -> Path:
    """Write fields that a learned codec has coded into one file.

    Parameters
    ----------
    path : str or Path
        Ends in ``.medgsz``.
    fields : mapping of str to CodedField

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix, or there is nothing to write.
    ParameterError
        When a name cannot be that of a file on every system, or two differ in case only.
    """
    path, names = _checked(path, fields)
    directory = []
    for name in names:
        field = fields[name]
        info = {**asdict(field.info), "grid": field.info.grid.to_dict()}
        directory.append(
            {
                "name": name,
                "bytes": len(field.data),
                "info": plain_record(info),
                "form": "latents",
                "gaussians": field.gaussians,
                "background": list(field.background),
                "codec": field.codec,
                "checksum": zlib.crc32(field.data),
            }
        )
    record = {"groups": [], "schemes": [], "fields": directory}
    return _written(path, pack_record(record, MAGIC, 2), [fields[n].data for n in names])


def _checked(path: str | Path, fields: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Return the path and the names in their order, when both are good."""
    path = Path(path)
    if not path.name.lower().endswith(SUFFIX):
        raise FileError(f"{path}: the file name of a cohort must end in {SUFFIX}.")
    if not fields:
        raise FileError(f"{path}: there are no fields to write.")
    names = sorted(fields)
    if len({check_name(name).casefold() for name in names}) < len(names):
        raise ParameterError("Two fields have names that differ in their case only; rename one.")
    return path, names


def _written(path: Path, start: bytes, payloads: list[bytes]) -> Path:
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        out.write(start)
        out.writelines(payloads)
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
