"""Commands that take images, or one field in their place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer


def is_field_alone(images: Sequence[str], field: Path | None) -> bool:
    """Tell whether a field stands in place of the images.

    Parameters
    ----------
    images : sequence of str
        The command's inputs.
    field : Path, optional
        The one of ``--field``.

    Raises
    ------
    typer.BadParameter
        When a field stands among images, or comes with ``--field``.
    """
    from napari_medgs.io.fields import is_field_file

    if not any(is_field_file(image) for image in images):
        return False
    if len(images) > 1 or field is not None:
        raise typer.BadParameter("give one field alone, or images with their field by --field.")
    return True
