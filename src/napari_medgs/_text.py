"""Text from files, made safe to show: names of labels, classes, files, DICOM strings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_KEPT = "\u200c\u200d"  # join letters and emoji in words; they move nothing
_HALF = re.compile("[\ud800-\udfff]")
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def well_formed(text: str) -> str:
    r"""Return a text that UTF-8 can hold: half of a pair of characters becomes U+FFFD.

    Names of files come with such halves where the system does not give them as UTF-8; a JSON file
    with them is written by no encoder, or refused when it is read.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> well_formed("größe"), ascii(well_formed("a\udcff"))
    ('größe', "'a\\ufffd'")
    """
    return _HALF.sub("\ufffd", text)


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return a text without characters that a terminal or viewer obeys instead of showing.

    Control characters (escape sequences, bells, backspaces), marks that reverse the direction of
    what follows, line and paragraph separators and lone surrogates become escapes as in a Python
    string.

    Parameters
    ----------
    text : object
        Shown as ``str(text)``.
    lines : bool
        Keep line breaks and tabs.

    Returns
    -------
    str

    Examples
    --------
    >>> from napari_medgs._text import printable
    >>> printable("liver\x1b[2J, größe"), printable("a\nb"), printable("a\nb", lines=True)
    ('liver\\x1b[2J, größe', 'a\\nb', 'a\nb')
    """
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    kept = _KEPT + "\n\t" * lines
    return "".join(
        c if c in kept or unicodedata.category(c) not in _UNSAFE else _escaped(c) for c in string
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def differing_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return names without what all of them begin and end with, up to a separator.

    Examples
    --------
    >>> differing_parts(["sub-1_T1w", "sub-1_FLAIR"])
    ('T1w', 'FLAIR')
    """
    start = 0
    while all(len(s) > start and s[start] == names[0][start] for s in names):
        start += 1
    while start and names[0][start - 1].isalnum():  # parts begin after a separator
        start -= 1
    end = 0
    while all(len(s) - start > end + 1 and s[-1 - end] == names[0][-1 - end] for s in names):
        end += 1
    while end and names[0][len(names[0]) - end].isalnum():
        end -= 1
    return tuple(s[start : len(s) - end] or s for s in names)
