"""The common header of all safetensors files of this package: kind of file and version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from napari_medgs._util.records import checked, parse_json
from napari_medgs.errors import FileError, FormatVersionError, ParameterError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io._content import wrong_content
from napari_medgs.io._limits import check_file

OWN = "napari-medgs "
"""How the names of this package's formats begin."""
LARGEST_HEADER = 2**24
"""Bytes of the longest header of any kind."""


class _Header(TypedDict, total=False):
    """The header of a safetensors file, as far as it is read here."""

    __metadata__: dict[str, str]


@dataclass(frozen=True)
class TensorFormat:
    """Header of one kind of safetensors file of this package.

    Attributes
    ----------
    name : str
        Value of ``format`` in the header.
    version : int
        Version that this program reads and writes.
    kind : str
        What the file holds, for messages: "field".
    max_header : int
        Bytes; a longer header is refused.
    """

    name: str
    version: int
    kind: str
    max_header: int

    def write(self, path: Path, tensors: bytes) -> None:
        """Write serialized tensors atomically.

        Raises
        ------
        FileError
            When the folder cannot be written.
        """
        with atomic_path(path) as temporary:
            # Not safetensors' save_file: that makes files which only their owner may read.
            temporary.write_bytes(tensors)

    def header(self, **texts: str) -> dict[str, str]:
        """Return the metadata to write."""
        return {"format": self.name, "format_version": str(self.version), **texts}

    def read_header(self, path: str | Path) -> dict[str, str]:
        """Read and check the metadata of a file, without loading tensors.

        Raises
        ------
        FileError
            When the file is missing, damaged, or of another kind.
        FormatVersionError
            When a newer version of the package wrote it.
        """
        path = check_file(path, f"the file of a {self.kind}")
        found = _metadata(path, self.kind, self.max_header)
        name, version = found.get("format"), found.get("format_version", "")
        if name != self.name:
            known = isinstance(name, str) and name.startswith(OWN)
            is_what = f"a {name.removeprefix(OWN)}" if known and name else "a safetensors file"
            raise FileError(f"{path}: is {is_what}, not a {self.kind}; give the file of one.")
        if version != str(self.version):
            raise FormatVersionError(
                f"{path}: {self.kind} format version {version or 'unknown'}; this program reads "
                f"version {self.version}. Update napari-medgs to open it."
            )
        return dict(found)


def format_of(path: str | Path) -> str:
    """Return the format that a safetensors file says it has.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    str
        Such as "napari-medgs classifier"; empty where another program wrote it.

    Raises
    ------
    FileError
        When the file is missing or damaged.
    """
    path = check_file(path, "a safetensors file")
    return _metadata(path, "safetensors file", LARGEST_HEADER).get("format", "")


def _metadata(path: Path, kind: str, most: int) -> dict[str, str]:
    """Read the texts of a header."""
    try:
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > min(most, path.stat().st_size):
                raise ValueError("its header is larger than it can be")
            record = checked(_Header, parse_json(opened.read(length)), "header")
    except (OSError, ValueError, ParameterError) as error:
        raise FileError(wrong_content(path, kind, error)) from error
    found: dict[str, str] = record.get("__metadata__", {})
    return found
