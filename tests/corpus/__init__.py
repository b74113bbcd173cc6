"""A corpus of small files of every kind, made when needed by libraries that are not ours."""

from tests.corpus import dicom, itk, newer, nifti, other  # noqa: F401
from tests.corpus.entries import CORPUS

__all__ = ["CORPUS"]
