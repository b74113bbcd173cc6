"""One frame: the pixels of a PNG, JPEG or TIFF file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError, ImageError
from napari_medgs.io._limits import check_file, check_inflation, check_memory
from napari_medgs.io._orientation_tag import exif_orientation, page_orientation, refuse_turned

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF)
_GRAY_MODES = {"1", "L", "I", "F", "I;16", "I;16B", "I;16L", "LA"}


def read_frame(path: Path, indexed: bool) -> NDArray[Any]:
    """Read one file.

    Parameters
    ----------
    path : Path
    indexed : bool
        Read a palette image as its indices rather than as colors.

    Returns
    -------
    (Y, X) or (Y, X, 3) ndarray
        As stored; alpha is dropped.

    Raises
    ------
    FileError
        When the file is missing, damaged or no image.
    ImageError
        When it has several pages, is turned, or holds other than gray or RGB pixels.
    """
    path = check_file(path, "an image")
    try:
        frame = _read_tiff(path) if path.suffix.lower() in TIFF else _read_pillow(path, indexed)
    except (FileError, ImageError):
        raise
    except Exception as error:
        # The decoders raise many kinds of errors on damaged files, none of them documented.
        raise FileError(f"{path}: truncated, damaged or no image ({error}).") from error
    if frame.size == 0:
        raise ImageError(f"{path}: the image is empty.")
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    if frame.ndim == 3 and frame.shape[2] in (3, 4):
        frame = frame[..., :3]
    elif frame.ndim != 2:
        raise ImageError(f"{path}: has shape {frame.shape}; gray or RGB pixels are needed.")
    if frame.dtype.kind == "c":
        raise ImageError(f"{path}: the image is complex; take its magnitude first.")
    return frame


def _read_pillow(path: Path, indexed: bool) -> NDArray[Any]:
    from PIL import Image

    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"{path}: has several pages; one frame per file is needed.")
        refuse_turned(path, exif_orientation(image))
        if image.mode == "P":
            if indexed:
                return np.array(image)
            return np.array(image.convert("RGB"))
        if image.mode in ("RGB", "RGBA"):
            return np.array(image)
        if image.mode not in _GRAY_MODES:
            raise ImageError(f"{path}: has colors of kind {image.mode}; save it as gray or RGB.")
        if image.mode == "LA":
            return np.array(image)[..., 0]
        frame = np.array(image)
        if image.mode == "1":
            return frame.astype(np.uint8)
        if image.mode == "I" and path.suffix.lower() == ".png":
            # Older decoders widen 16-bit PNG to 32 bits.
            return frame.astype(np.uint16)
        return frame if frame.dtype.isnative else frame.astype(frame.dtype.newbyteorder("="))


def _read_tiff(path: Path) -> NDArray[Any]:
    import tifffile

    with quiet_tifffile(), tifffile.TiffFile(path) as opened:
        if not len(opened.pages):
            raise FileError(f"{path}: truncated, damaged or no image (it has no page).")
        if len(opened.pages) != 1:
            raise ImageError(
                f"{path}: has {len(opened.pages)} pages; one frame per file is needed; split it."
            )
        page = opened.pages[0]
        check_inflation(path, int(page.nbytes), path.stat().st_size)
        check_memory(path, int(page.nbytes))
        refuse_turned(path, page_orientation(page))
        frame = brightness(np.asarray(page.asarray()), page)
    if frame.dtype == np.bool_:
        return frame.astype(np.uint8)
    return frame if frame.dtype.isnative else frame.astype(frame.dtype.newbyteorder("="))


def brightness(values: NDArray[Any], page: Any) -> NDArray[Any]:
    """Return TIFF values so that high ones are bright, as in the other image formats.

    Parameters
    ----------
    values : ndarray
        As stored.
    page : tifffile.TiffPage
        Says whether 0 is imaged as white (``PhotometricInterpretation`` WhiteIsZero), which is
        defined for unsigned values of any number of bits.

    Returns
    -------
    ndarray
        Counted down from the largest value of that many bits where 0 is white.

    References
    ----------
    TIFF Revision 6.0, section 3 (bilevel) and 4 (grayscale).
    """
    if getattr(getattr(page, "photometric", None), "name", "") != "MINISWHITE":
        return values
    if values.dtype.kind == "b":
        return ~values
    if values.dtype.kind != "u":
        return values
    bits = min(int(page.bitspersample), 8 * values.dtype.itemsize)
    return values.dtype.type(2**bits - 1) - values


@contextmanager
def quiet_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile only logs, and keep it off the terminal."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(" ".join(record.getMessage().split())[:200])

    logger, handler = logging.getLogger("tifffile"), Collect(logging.ERROR)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def refuse_bombs() -> Iterator[None]:
    """Turn Pillow's warning about implausibly large images into an error."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def write_frame(path: Path, frame: NDArray[Any]) -> None:
    """Write one file: PNG where its name says so, TIFF otherwise.

    Parameters
    ----------
    path : Path
    frame : (Y, X) or (Y, X, 3) ndarray
        Of a type that the format holds.
    """
    if path.suffix == ".png":
        import imageio.v3 as iio

        iio.imwrite(path, frame)
    else:
        import tifffile

        photometric = "rgb" if frame.ndim == 3 else "minisblack"
        tifffile.imwrite(path, frame, photometric=photometric)
