"""Recognize DICOM files; keep the warnings of the libraries that read them off."""

from __future__ import annotations

import os
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_medgs.errors import FileError
from napari_medgs.io import _limits

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MOST_FILES = 100_000


def is_dicom_file(path: Path) -> bool:
    """Tell by its first bytes, or its suffix, whether a file is DICOM."""
    if not path.is_file():  # opening a pipe could wait for ever
        return False
    try:
        with path.open("rb") as opened:
            start = opened.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (path.suffix.lower() in (".dcm", ".ima") and bool(start))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and the folders below it; hidden ones are passed over.

    Raises
    ------
    FileError
        When there are more than 100,000.
    """
    for count, file in enumerate(sorted(folder.rglob("*"))):
        if count > _MOST_FILES:
            raise FileError(f"{folder}: more than {_MOST_FILES:,} files; give a folder below it.")
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if not hidden and file.is_file():
            yield file


_stderr_lock = threading.Lock()


@contextmanager
def no_native_messages() -> Iterator[None]:
    """Keep what C libraries print off the terminal: libjpeg and OpenJPEG, within GDCM."""
    with _stderr_lock:
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (AttributeError, OSError, ValueError):  # No terminal, as in a windowed program.
            yield
            return
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def inflates_too_far(path: Path) -> bool:
    """Tell whether a file of the deflated transfer syntax becomes far too large.

    Its size after decompression stands nowhere, so that it is decompressed, keeping nothing.
    """
    try:
        with path.open("rb") as opened:
            start = opened.read(1024)
            if start[128:132] != b"DICM" or _DEFLATED not in start:
                return False
            opened.seek(144 + int.from_bytes(start[140:144], "little"))
            inflate, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
            most = max(_limits.EMPTY_BYTES, _limits.EMPTY_RATIO * path.stat().st_size)
            while not inflate.eof and found <= most:
                chunk = inflate.unconsumed_tail or opened.read(2**20)
                if not chunk:
                    break
                found += len(inflate.decompress(chunk, 2**24))
    except (OSError, zlib.error):
        return False  # the reader says what is wrong
    return found > most


@contextmanager
def no_library_warnings() -> Iterator[None]:
    """Keep the warnings of ITK and pydicom off the terminal; ours say what matters."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pydicom")
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
