"""Masks of a batch must not take the place of images, prompts or masks that were made by hand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_medgs.errors import FileError, MedGSError
from napari_medgs.io.formats import MASK_SUFFIXES

TRUTHS = ("labels", "labelsTr", "label")
"""Folders that hold the truth of the images beside them. One named ``masks`` may be an output."""


def check_folder_name(folder: Path) -> Path:
    """Return a folder of masks; refuse a new one with the name of a file.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When it does not exist and has the suffix of an image or mask.
    """
    if not folder.exists() and folder.name.lower().endswith(MASK_SUFFIXES):
        raise FileError(
            f"{folder}: of several images the masks go into a folder; give the name of one, "
            "without the suffix of a file."
        )
    return folder


def check_mask_outputs(outputs: Sequence[Path], inputs: Iterable[str | Path]) -> None:
    """Refuse masks among what is read: over a file, in a folder that is one image, over truths.

    A list of images may name files anywhere, also in the folder of the masks; and folders that are
    one image each, such as a DICOM series, whose slices masks would lie among. A folder such as
    ``labels`` beside ``images`` holds the masks that a segmenter is trained on: those of a batch
    would replace them under the same names.

    Parameters
    ----------
    outputs : sequence of Path
        The masks that will be written.
    inputs : iterable of str or Path
        Files and folders that are read. Symbolic links are followed.

    Raises
    ------
    FileError
        Naming the first of these files.
    """
    read = {os.path.realpath(path) for path in inputs}
    images = {path for path in read if os.path.isdir(path)}
    for folder in sorted({path.parent for path in outputs}):
        if os.path.realpath(folder) in images:
            raise FileError(
                f"{folder}: is the folder of an image; choose another output folder, so that no "
                "masks lie among its slices."
            )
    there = [path for path in outputs if path.exists()]
    for path in there:
        if os.path.realpath(path) in read:
            raise FileError(
                f"{path}: the mask would overwrite this input; choose another output folder."
            )
    for folder in sorted({path.parent for path in there}):
        known = _masks_to_learn(folder)
        lost = [
            path for path in there if path.parent == folder and os.path.realpath(path) in known
        ]
        if lost:
            raise FileError(
                f"{lost[0]}: this is a mask of the data set {folder.parent}, as train-segmenter "
                "reads it; choose another output folder, so that it is not overwritten."
            )


def _masks_to_learn(folder: Path) -> set[str]:
    """Return the masks in a folder that are those of the images in the folder beside it."""
    from napari_medgs.learning.data.sources import find_training_cases

    folder = folder.absolute()
    if folder.name not in TRUTHS:
        return set()
    try:
        cases = find_training_cases(folder.parent).cases
    except MedGSError:  # no data set
        return set()
    return {os.path.realpath(case.mask) for case in cases}
