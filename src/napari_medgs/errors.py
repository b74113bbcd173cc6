"""Exceptions whose message says what is wrong and what to do."""

from __future__ import annotations

from napari_medgs._text import printable


class MedGSError(Exception):
    """Base of all errors that say what is wrong and what to do about it.

    Names from files stand in their messages: characters that a terminal obeys are escaped.
    """

    def __str__(self) -> str:
        """Return the message, safe to show."""
        return printable(super().__str__(), lines=True)


class FileError(MedGSError):
    """A file is missing, truncated, empty, of the wrong kind or cannot be written."""


class FormatVersionError(FileError):
    """A field or model file was written by an unknown, usually newer, version."""


class ImageError(MedGSError):
    """An image cannot be fitted: not finite, constant, complex, RGB, or of the wrong dimension."""


class GeometryError(MedGSError):
    """Affine, spacing or grid shapes are unusable or do not agree."""


class LabelError(MedGSError):
    """A mask is not made of integers, or its labels are out of range."""


class ParameterError(MedGSError):
    """A setting is out of its range or contradicts another one."""


class BackendError(MedGSError):
    """The chosen rendering backend cannot be used on this machine."""


class MissingPackageError(MedGSError):
    """A feature needs a package that is not installed; the message has the pip command."""


class MemoryEstimateError(MedGSError):
    """The task would not fit into memory; the message says what would."""


class Cancelled(MedGSError):
    """The user canceled; the last good result, if any, is kept."""
