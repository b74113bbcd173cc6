"""Names of cases, which are safe as parts of file names on every system."""

from __future__ import annotations

import re
import unicodedata

from napari_medgs.errors import FileError

MOST_LETTERS = 100
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def case_name(text: str) -> str:
    """Return a text as the name of a case: letters, digits, ``-``, ``_`` and ``.`` only.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> case_name("Schädel (T1)"), case_name("../a b"), case_name("nul")
    ('Schadel_T1', 'a_b', 'case_nul')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9.-]+", "_", plain).strip("._-")[:MOST_LETTERS].strip("._-")
    return kept if is_name(kept) else f"case_{kept}".strip("_")


def is_name(text: str) -> bool:
    """Tell whether a text is the name of a case as it stands."""
    return (
        len(text) <= MOST_LETTERS + len("case_")
        and _NAME.fullmatch(text) is not None
        and _RESERVED.fullmatch(text) is None
    )


def checked_name(name: str) -> str:
    """Return a name that is safe as part of a file name.

    Raises
    ------
    FileError
    """
    if not is_name(name):
        raise FileError(
            f"{name!r} cannot be the name of a case: use letters, digits, '-', '_' and '.', and "
            "begin with a letter or digit."
        )
    return name
