"""Outputs of a command: checked before work starts; none may overwrite an input or another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medgs.errors import FileError

if TYPE_CHECKING:
    from napari_medgs.io.cases import Case
    from napari_medgs.learning.data.sources import TrainingCase

DESCRIPTIONS = ("dataset.json", "dataset_description.json", "labels.csv")
"""Files that describe the data set of a folder."""

WITHOUT_NAMES = (".safetensors", ".medgs", ".medgsz", ".npz", ".csv", ".tsv", ".txt", ".lst")
"""Suffixes of inputs beside which no file of label names is read."""


def check_distinct(
    inputs: Iterable[str | Path | None],
    outputs: Mapping[str, Path | None],
    *,
    masks: Iterable[str] = (),
) -> None:
    """Refuse outputs that would overwrite an input or each other, and inputs that are no files.

    Symbolic links are followed. A mask's label names go to a JSON file beside it, which counts as
    an output too; only ``--json`` may be the same file, as it keeps the names.

    Parameters
    ----------
    inputs : iterable of str, Path or None
        Files and folders that are read; None for what was not given. ``FILE.npz:SPLIT:INDEX``
        stands for its file.
    outputs : mapping of str to Path or None
        By the option that names it, such as ``{"-o": path, "--json": None}``.
    masks : iterable of str
        The options whose outputs are masks with label names.

    Raises
    ------
    FileError
        Naming the option, the file and what it would overwrite; or the pipe or device that is
        given as an input.
    """
    from napari_medgs.io.folders import check_folder_of, link_target, refuse_stream
    from napari_medgs.io.label_names import sidecar_path

    read = [_input_path(path) for path in inputs if path is not None]
    for source in read:
        refuse_stream(source)
    given = {option: path for option, path in outputs.items() if path is not None}
    for option, path in given.items():
        for source in read:
            if _same(path, source):
                raise FileError(
                    f"{path}: {option} would overwrite the input {source}; choose another output."
                )
            if source.is_dir() and _is_file_of(path, source):
                raise FileError(
                    f"{path}: {option} would overwrite a file of the input {source}; choose "
                    "another output."
                )
            if path.name.lower().endswith(".json") and _is_for_names(path, source):
                raise FileError(
                    f"{path}: {option} would overwrite the label names of {source}, which are "
                    "read from a file of this name; choose another output."
                )
    listed = list(given.items())
    for k, (option, path) in enumerate(listed):
        for other, second in listed[k + 1 :]:
            if _same(path, second):
                raise FileError(
                    f"{path}: {option} and {other} are the same file; choose another for one of "
                    "them."
                )
    for option in masks:
        mask = given.get(option)
        if mask is None or mask.is_dir():
            continue
        names = sidecar_path(mask)
        if names.is_file():
            check_folder_of(link_target(names))
        for source in read:
            if _same(names, source) or (not _same(mask, source) and _shares_names(names, source)):
                raise FileError(
                    f"{mask}: its label names go to {names.name}, which belongs to the input "
                    f"{source}; choose another output."
                )


def files_of(cases: Iterable[Case | TrainingCase]) -> list[str]:
    """Return the images and masks of cases, which may lie anywhere when a list names them.

    Parameters
    ----------
    cases : iterable of Case or TrainingCase

    Returns
    -------
    list of str
    """
    return [file for case in cases for file in (*case.images, case.mask) if file is not None]


def _input_path(path: str | Path) -> Path:
    """Return the file of an input; ``FILE.npz:SPLIT:INDEX`` names a part of one."""
    text = os.fspath(path)
    file, colon, _ = text.partition(".npz:")
    return Path(f"{file}.npz") if colon else Path(text)


def _same(first: Path, second: Path) -> bool:
    """Tell whether two paths are one file, links and spelling of the system resolved."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return first.samefile(second)
    except OSError:  # one of them does not exist
        return False


def _shares_names(names: Path, source: Path) -> bool:
    """Tell whether a file of label names exists and is that of an input."""
    from napari_medgs.io.label_names import sidecar_path

    if not _may_have_names(source):
        return False
    return names.is_file() and source.is_file() and _same(names, sidecar_path(source))


def _may_have_names(source: Path) -> bool:
    """Tell whether an input can be a mask; models, fields, sets and tables have no label names."""
    return not source.name.lower().endswith(WITHOUT_NAMES)


def _is_for_names(path: Path, source: Path) -> bool:
    """Tell whether a file is where the label names of an input are, or would be, read from.

    Beside a folder only where they are: most folders are cases or an image, not frames of a mask.
    """
    import warnings

    from napari_medgs.io.label_names import read_label_names, sidecar_path

    if not _may_have_names(source) or not _same(path, sidecar_path(source)):
        return False
    if not source.is_dir():
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged one is told where it is read
        return bool(read_label_names(source))


def _is_file_of(path: Path, folder: Path) -> bool:
    """Tell whether an existing file is one that commands read from an input folder."""
    from napari_medgs.io.dicom.file import is_dicom_file
    from napari_medgs.io.fields import SUFFIXES as FIELDS
    from napari_medgs.io.formats import READ_SUFFIXES
    from napari_medgs.io.image_frame import SUFFIXES as FRAMES

    real = Path(os.path.realpath(path))
    if not path.is_file() or Path(os.path.realpath(folder)) not in real.parents:
        return False
    name = real.name.lower()
    return (
        name.endswith((*READ_SUFFIXES, *FRAMES, *FIELDS))
        or name in DESCRIPTIONS
        or (name.endswith(".json") and _is_beside_image(real))
        or is_dicom_file(path)
    )


def _is_beside_image(path: Path) -> bool:
    """Tell whether a JSON file has the name of an image: label names, or how it was acquired."""
    from napari_medgs.io.formats import READ_SUFFIXES

    stem = path.name[: -len(path.suffix)]
    return any(path.with_name(stem + suffix).exists() for suffix in READ_SUFFIXES)
