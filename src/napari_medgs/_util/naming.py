"""Error messages that name the files in question.

The stages work on arrays and speak of "the image" and "the mask". Who read these from files knows
which they are, and says so around the call.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_medgs.errors import Cancelled, MedGSError

_NOUNS = {
    "image": r"images?\b|volumes?\b|contrasts?\b|intensit",
    "mask": r"(?<!initial )masks?\b|labels?\b|segmentation\b",
    "initial": r"initial masks?\b|prior\b",
    "prompts": r"prompts\b|strokes\b|scribbles\b|marked\b",
    "region": r"region\b",
    "field": r"(initial )?field\b|Gaussians\b",
    "session": r"session\b",
    "truth": r"truth\b",
    "segmentation": r"segmentation\b|prediction\b",
}
"""How messages call what a file holds, after "the", "a", "an" or nothing."""

_MOST = 4  # files of several contrasts are all named up to this number

Name = str | Path | None | Iterable[str | Path]


@contextmanager
def naming(**files: Name) -> Iterator[None]:
    """Name files in the errors that are raised within the block.

    Parameters
    ----------
    **files : str, Path, iterable of them, or None
        By what they hold: image, mask, initial, prompts, field, session, truth, segmentation.

    Examples
    --------
    >>> from napari_medgs.errors import ImageError
    >>> try:
    ...     with naming(image="scan.nii.gz", mask=None):
    ...         raise ImageError("The image is constant (7): there is nothing to fit.")
    ... except ImageError as error:
    ...     print(error)
    scan.nii.gz: the image is constant (7): there is nothing to fit.
    """
    try:
        yield
    except Cancelled:
        raise
    except MedGSError as error:
        error.args = (named(str(error), **files),)
        raise


def named(message: str, **files: Name) -> str:
    """Return a message with the files that it speaks of in front.

    Parameters
    ----------
    message : str
    **files
        See :func:`naming`.

    Returns
    -------
    str
        The message itself if it names the files already, or speaks of none of them.

    Examples
    --------
    >>> named("The mask has shape (2, 2, 2), the image (3, 3, 3).", image="a.nii", mask="b.nii")
    'b.nii, a.nii: the mask has shape (2, 2, 2), the image (3, 3, 3).'
    """
    if os.path.lexists(message.partition(": ")[0]):
        return message  # it begins with the file that it is about
    known = {what: _texts(value) for what, value in files.items()}
    known = {what: texts for what, texts in known.items() if texts}
    if "image" in known:
        message = message.replace("'the image'", f"'{Path(known['image'][0]).name}'")
    for quoted in set(re.findall(r"'([^']+)'", message)):
        # Channels are called like their files, without the suffix.
        for text in known.get("image", ()):
            if os.path.basename(text).startswith(f"{quoted}."):
                message = message.replace(f"'{quoted}'", f"'{os.path.basename(text)}'")
    if any(os.path.basename(text) in message for texts in known.values() for text in texts):
        return message
    found: list[tuple[int, list[str]]] = []
    for what, texts in known.items():
        match = re.search(rf"\b(?:{_NOUNS[what]})", message, re.IGNORECASE)
        if match is not None:
            found.append((match.start(), texts))
    if not found and known and "GiB" in message:  # too little memory, for what was read first
        found = [(0, next(iter(known.values())))]
    if not found:
        return message
    names: list[str] = []
    for _, texts in sorted(found, key=lambda entry: entry[0]):
        more = [f"and {len(texts) - _MOST} more"] if len(texts) > _MOST else []
        names += [text for text in texts[:_MOST] if text not in names] + more
    start = message[:1].lower() if re.match(r"(The|A|An|Its|There|No) ", message) else message[:1]
    return f"{', '.join(names)}: {start}{message[1:]}"


def _texts(value: Name) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (str, Path)):
        return [os.fspath(value)]
    return [os.fspath(one) for one in value]
