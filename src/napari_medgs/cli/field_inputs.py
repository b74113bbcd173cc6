"""Commands that take images, or one field in their place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_medgs.cli.command import print_error, refuse_idle
from napari_medgs.cli.options import OF_IMAGES

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume


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
    refuse_idle(OF_IMAGES, "on a field")
    return True


def load_field_of(volume: Volume, image: str, field: Path, working_voxels: int) -> GaussianField:
    """Load the field of an image, and warn where it seems to be that of another one.

    Parameters
    ----------
    volume : Volume
    image : str
        Its file, for the warning.
    field : Path
    working_voxels : int
        See :class:`~napari_medgs.segmentation.SegmentParams`.

    Raises
    ------
    FileError
        When the file holds no field.
    """
    from napari_medgs.io.fields import load_field

    loaded = load_field(field)
    warn_of_mismatch(volume, image, loaded, field, working_voxels=working_voxels)
    return loaded


def warn_of_mismatch(
    volume: Volume, image: str, loaded: GaussianField, field: Path, **options: Any
) -> None:
    """Warn where a field seems to be that of another image.

    Parameters
    ----------
    volume : Volume
    image : str
        Its file, for the warning.
    loaded : GaussianField
    field : Path
        Its file.
    **options
        Of :func:`~napari_medgs.segmentation.field_check.field_mismatch`.
    """
    from napari_medgs.segmentation.field_check import field_mismatch

    wrong = field_mismatch(volume, loaded, **options)
    if wrong is not None:
        print_error(
            f"warning: {field}: this field does not look like {image} (PSNR {wrong.psnr:.0f} dB, "
            f"{wrong.fitted:.0f} dB when it was fitted); was it fitted to another image?"
        )
