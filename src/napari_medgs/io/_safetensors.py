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
        try:
            with path.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                if length > min(self.max_header, path.stat().st_size):
                    raise ValueError("its header is larger than it can be")
                record = checked(_Header, parse_json(opened.read(length)), "header")
                found: dict[str, str] = record.get("__metadata__", {})
                name, version = found.get("format"), found.get("format_version", "")
        except (OSError, ValueError, ParameterError) as error:
            raise FileError(wrong_content(path, self.kind, error)) from error
        if name != self.name:
            own = "napari-medgs "
            known = isinstance(name, str) and name.startswith(own)
            is_what = f"a {name.removeprefix(own)}" if known and name else "a safetensors file"
            raise FileError(f"{path}: is {is_what}, not a {self.kind}; give the file of one.")
        if version != str(self.version):
            raise FormatVersionError(
                f"{path}: {self.kind} format version {version or 'unknown'}; this program reads "
                f"version {self.version}. Update napari-medgs to open it."
            )
        return dict(found)
