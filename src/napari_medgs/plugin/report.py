"""Errors as napari's notifications, never as a traceback window."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from napari_medgs.errors import Cancelled, MedGSError

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

LOGGER = logging.getLogger("napari_medgs")
F = TypeVar("F", bound=Callable[..., Any])


def show_failure(error: BaseException, what: str = "That") -> None:
    """Show an exception as a notification.

    Parameters
    ----------
    error : BaseException
        This package's own errors are shown as they are; others are logged, too.
    what : str
        What failed, as the subject of a sentence.
    """
    from napari.utils.notifications import show_error, show_info

    if isinstance(error, Cancelled):
        show_info(str(error) or "Canceled.")
    elif isinstance(error, MedGSError):
        show_error(str(error))
    elif isinstance(error, MemoryError):
        show_error(f"{what} needs more memory than is free: crop or resample the image.")
        LOGGER.error("out of memory", exc_info=error)
    else:
        name = type(error).__name__
        show_error(
            f"{what} failed unexpectedly ({name}: {error}). The details are in the log "
            "(logger 'napari_medgs'); please report them."
        )
        LOGGER.error("unexpected failure", exc_info=error)


def show_hint(text: str) -> None:
    """Show a notification that is no error."""
    from napari.utils.notifications import show_warning

    show_warning(text)


def prepared(volume: Volume) -> Volume:
    """Return an image as fits and segmentations take it; a notification says what became of NaN.

    Raises
    ------
    ImageError
        When the image cannot be used.
    """
    filled, texts = prepared_volume(volume)
    for text in texts:
        show_hint(text)
    return filled


def prepared_volume(volume: Volume) -> tuple[Volume, tuple[str, ...]]:
    """Return an image as fits and segmentations take it, and what became of NaN, in words.

    Raises
    ------
    ImageError
        When the image cannot be used.
    """
    from napari_medgs.data.intensities import finite_volume

    filled, texts = finite_volume(volume)
    return filled.prepared(), tuple(texts)


def guarded(method: F) -> F:
    """Wrap a method that Qt calls so that its exceptions become notifications."""

    @wraps(method)
    def safe(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            show_failure(error, getattr(self, "title", "That"))
            return None

    return safe  # type: ignore[return-value]
