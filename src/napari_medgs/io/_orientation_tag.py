"""The orientation tag of TIFF and of Exif in JPEG and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_medgs.errors import ImageError

ORIENTATION_TAG = 274


def page_orientation(page: Any) -> Any:
    """Return the orientation tag of a page of tifffile, None where it has none."""
    tag = page.tags.get(ORIENTATION_TAG)
    return None if tag is None else tag.value


def exif_orientation(image: Any) -> Any:
    """Return the orientation tag of an image of Pillow, None where it has none or damaged Exif."""
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:
        # Pillow raises many kinds of errors on damaged Exif, without which the pixels are read.
        return None


def refuse_turned(path: Path, orientation: Any) -> None:
    """Refuse pixels that are stored mirrored or turned.

    Parameters
    ----------
    path : Path
        For the message.
    orientation : int or None
        The tag; 1 is upright, and 0 and None say nothing.

    Raises
    ------
    ImageError
        For 2 to 8. Programs do not agree on what they mean: tifffile, imageio and scikit-image
        pass over them, Pillow follows them in TIFF files only, and ITK takes those that exchange
        rows and columns for mirror images.

    References
    ----------
    TIFF Revision 6.0, section 8, tag 274; Exif 2.32, section 4.6.4.
    """
    if isinstance(orientation, int) and 2 <= orientation <= 8:
        raise ImageError(
            f"{path}: its orientation tag ({int(orientation)}) says that the pixels are stored "
            "mirrored or turned. Some programs follow it and others do not: save the image "
            "upright, without the tag."
        )
