"""Headers of DICOM files, read by pydicom; damaged elements count as missing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.io.dicom.file import inflates_too_far

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
DIRECTORY = "1.2.840.10008.1.3.10"
_MOST_TEXT = 200
_CLASS_TAG = 0x00080016


def read_header(path: str | Path) -> Any | None:
    """Return a file's data set without pixels, None when no DICOM header can be read.

    Parameters
    ----------
    path : str or Path
        With or without the 128 bytes and ``DICM`` at its start.

    Returns
    -------
    pydicom.FileDataset or None
    """
    import pydicom

    if inflates_too_far(Path(path)):
        return None
    with quiet_pydicom():
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            # Elements are decoded when first used; the groups that every file has, now.
            found = len(header) > 0 and ("SOPClassUID" in header or "Rows" in header)
        except Exception:  # pydicom raises many kinds on damaged bytes.
            return None
    return header if found else None


def read_class(path: str | Path) -> str:
    """Return the SOP class of a file, of which no more is read; empty where there is none."""
    from pydicom.filereader import read_partial

    with quiet_pydicom():
        try:
            with Path(path).open("rb") as opened:
                start = read_partial(opened, lambda tag, *_: tag > _CLASS_TAG, force=True)
            return class_uid(start)
        except Exception:  # pydicom raises many kinds on damaged bytes.
            return ""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings about odd values off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def value(data: Any, keyword: str) -> Any | None:
    """Return an element's value, None where it is missing, empty or damaged."""
    with quiet_pydicom():
        try:
            found = data.get(keyword)
            return None if found is None or found == "" else found
        except Exception:  # Decoding damaged bytes raises many kinds.
            return None


def has_content(data: Any, keyword: str) -> bool:
    """Tell whether an element is there and not blank, whatever it says."""
    try:
        found = data.get_item(keyword)
    except Exception:  # pydicom raises many kinds on damaged bytes.
        return False
    content = getattr(found, "value", None)
    plain = content.decode("ascii", "replace") if isinstance(content, bytes) else content
    return plain is not None and bool(str(plain).strip(" \0"))


def text(data: Any, keyword: str) -> str:
    """Return an element as one line of printable text, empty where there is none."""
    found = value(data, keyword)
    line = "" if found is None else str(found)[:_MOST_TEXT]
    return "".join(c if c.isprintable() else " " for c in line).strip()


def numbers(data: Any, keyword: str, count: int) -> NDArray[np.float64] | None:
    """Return an element of ``count`` finite numbers, None where it is not that."""
    found = value(data, keyword)
    try:
        array = np.atleast_1d(np.asarray(found, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.shape == (count,) and bool(np.isfinite(array).all()) else None


def number(data: Any, keyword: str) -> float | None:
    """Return an element of one finite number, None where it is not that."""
    found = numbers(data, keyword, 1)
    return None if found is None else float(found[0])


def integer(data: Any, keyword: str, default: int = 0) -> int:
    """Return an element of one whole number."""
    found = number(data, keyword)
    return default if found is None or abs(found) > 2**53 else math.floor(found)


def items(data: Any, keyword: str) -> list[Any]:
    """Return the items of a sequence, none where it is missing or damaged."""
    found = value(data, keyword)
    try:
        return [item for item in found or () if hasattr(item, "get")]
    except TypeError:
        return []


def read_code(data: Any, keyword: str) -> tuple[str, str, str] | None:
    """Return value, scheme and meaning of the first item of a code sequence."""
    for code in items(data, keyword):
        values = (text(code, k) for k in ("CodeValue", "LongCodeValue", "URNCodeValue"))
        found = next((v for v in values if v), "")
        return (found, text(code, "CodingSchemeDesignator"), text(code, "CodeMeaning"))
    return None


def class_uid(header: Any) -> str:
    """Return the SOP class of a file."""
    meta = getattr(header, "file_meta", None)
    own = text(header, "SOPClassUID")
    return own or (text(meta, "MediaStorageSOPClassUID") if meta is not None else "")


def class_name(header: Any) -> str:
    """Return what the standard calls a file's SOP class, such as "CT Image Storage"."""
    from pydicom.uid import UID

    uid = class_uid(header)
    return str(UID(uid).name) if uid else "of no stated kind"


def transfer_syntax(header: Any) -> str:
    """Return how the pixels are encoded.

    Where a file does not say, it is not compressed, and its elements show their encoding.
    """
    meta = getattr(header, "file_meta", None)
    named = text(meta, "TransferSyntaxUID") if meta is not None else ""
    if named:
        return named
    implicit, little = getattr(header, "original_encoding", (True, True))
    if little is False:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2.1" if implicit is False else "1.2.840.10008.1.2"
