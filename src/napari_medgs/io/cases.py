"""The images of a batch: from a folder, a list, a table or a MedMNIST file."""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from napari_medgs._text import differing_parts
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io.folders import is_broken_link, missing, visible_entries

IMAGES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".gipl")
LISTS = (".txt", ".lst", ".csv", ".tsv")
ENDINGS = ("_seg", "-seg", "_mask", "-mask", "_label", "-label", "_labels", "_segmentation", "_gt")
"""What follows an image's name in the name of its mask, side by side."""
IMAGE_COLUMNS = ("image", "path")
CONTRAST_SEPARATOR = ";"
_SET = re.compile(r"^(?P<file>.+\.npz)(?::(?P<split>[^:/\\]*))?(?::(?P<index>\d+))?$", re.I)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Case:
    """One image of a batch.

    Attributes
    ----------
    name : str
        Path below the output folder, without suffix; may contain ``/``.
    images : tuple of str
        Contrasts of one grid, as :func:`napari_medgs.io.read_volumes` takes them.
    mask : str, optional
        Label image that the field learns, too.
    """

    name: str
    images: tuple[str, ...]
    mask: str | None = None


def find_cases(
    source: str | Path, *, pattern: str | None = None, mask: str | None = None
) -> list[Case]:
    """Return the images of a batch, in a fixed order.

    Parameters
    ----------
    source : str or Path
        A folder: every image file in it, and every folder in it with DICOM slices or frames. A
        mask beside its image (``NAME_seg.nii.gz`` and the like) is not one of the images.
        A ``.txt`` file: one image per line. A ``.csv`` file: columns ``image`` (or ``path``;
        several contrasts joined by ``;``) and, optionally, ``mask`` and ``name``. A MedMNIST
        file ``FILE.npz``, or ``FILE.npz:SPLIT``. Paths in lists start at the list's folder.
    pattern : str, optional
        Which files of a folder, such as ``**/*_T1w.nii.gz``.
    mask : str, optional
        Path of an image's mask, relative to the image's folder, such as
        ``../labels/{name}_seg.nii.gz``; ``{name}`` is the image's file name without suffix,
        ``{file}`` the whole file name.

    Returns
    -------
    list of Case
        At least one.

    Raises
    ------
    FileError
        When there is no such source, it is damaged, or it contains no image.
    ParameterError
        When pattern, mask or names are malformed, or two cases would be written to one file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from napari_medgs.io.cases import find_cases
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("first.nii.gz", "second.nii.gz"):
    ...         Path(folder, name).touch()
    ...     [case.name for case in find_cases(folder)]
    ['first', 'second']
    """
    text = os.fspath(source)
    place = Path(text)
    if mask is not None:
        _check_placeholders(mask)
    kind = place.suffix.lower()
    if place.is_dir():
        cases = _of_folder(place, pattern, mask)
    elif _SET.match(text):
        if mask is not None:
            raise ParameterError("MedMNIST sets have no masks: leave out the mask.")
        cases = _of_set(text)
    elif not place.exists():
        raise missing(text, "file or folder")
    elif kind in (".csv", ".tsv"):
        cases = _of_table(place)
    elif kind in LISTS:
        cases = _of_list(place)
    else:
        raise FileError(
            f"{text}: a batch is a folder, a list (.txt, .csv, .tsv) or a MedMNIST .npz file; "
            "use fit for a single image."
        )
    if pattern is not None and not place.is_dir():
        raise ParameterError("A pattern chooses among the files of a folder only.")
    if mask is not None:
        cases = [replace(c, mask=c.mask or mask_of(c.images[0], mask)) for c in cases]
    if not cases:
        raise FileError(f"{text}: contains no image.")
    _check_names(cases)
    return cases


def mask_of(image: str, pattern: str) -> str:
    """Return the path of an image's mask by a pattern; see :func:`find_cases`."""
    path = Path(image)
    relative = pattern.replace("{name}", stem_of(path.name)).replace("{file}", path.name)
    return os.path.normpath(path.parent / relative)


def stem_of(file: str) -> str:
    """Return a file's name without ``.nii.gz`` or another suffix."""
    for suffix in IMAGES:
        if file.lower().endswith(suffix):
            return file[: -len(suffix)]
    return file


def contrast_names(images: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """Return what tells the contrasts of a case apart, whatever the case is called.

    Parameters
    ----------
    images : sequence of str
        The files of the contrasts.
    channels : sequence of str
        Names of the contrasts as they were read.

    Returns
    -------
    tuple of str
        One a contrast: the file names without what they share; ``image`` for a single one.

    Examples
    --------
    >>> contrast_names(["sub-1_T1w.nii.gz", "sub-1_FLAIR.nii.gz"], ["sub-1_T1w", "sub-1_FLAIR"])
    ('T1w', 'FLAIR')
    """
    if len(images) != len(channels) or len(channels) == 1:
        return tuple(channels) if len(channels) > 1 else ("image",)
    stems = [stem_of(Path(path).name) for path in images]
    return tuple(channels) if len(set(stems)) < len(stems) else differing_parts(stems)


def _is_image(name: str) -> bool:
    """Tell an image by its file name; segmentations of 3D Slicer are masks."""
    return name.lower().endswith(IMAGES) and not name.lower().endswith(".seg.nrrd")


def _check_placeholders(pattern: str) -> None:
    found = set(_PLACEHOLDER.findall(pattern))
    if not found or found - {"name", "file"}:
        raise ParameterError(
            f"'{pattern}' is not a pattern for masks: write it with {{name}} (the image's "
            "file name without suffix) or {file}, such as 'labels/{name}_seg.nii.gz'."
        )


def _of_folder(folder: Path, pattern: str | None, mask: str | None) -> list[Case]:
    """List a folder's images, except those that are the mask of another image."""
    from napari_medgs.io.dicom.series import is_dicom_folder
    from napari_medgs.io.image_stack import find_frames
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    if pattern is not None:
        try:
            found = sorted(folder.glob(pattern))
        except (ValueError, NotImplementedError) as error:
            raise ParameterError(
                f"'{pattern}' is not a pattern of file names ({error})."
            ) from error
    else:
        found = [
            entry
            for entry in visible_entries(folder)
            if (_is_image(entry.name) and (entry.is_file() or is_broken_link(entry)))
            or is_ome_zarr(entry)
            or (entry.is_dir() and (is_dicom_folder(entry) or find_frames(entry)))
        ]
    found = [entry for entry in found if not entry.name.startswith(".")]
    if pattern is None:
        found = _without_masks(found)
    if mask is not None:
        masks = {mask_of(str(entry), mask) for entry in found}
        found = [entry for entry in found if os.path.normpath(entry) not in masks]
    return [Case(_below(entry, folder), (str(entry),)) for entry in found]


def _without_masks(found: list[Path]) -> list[Path]:
    """Leave out files that are named as the mask of another one."""
    names = {stem_of(entry.name) for entry in found}
    masks = {name + ending for name in names for ending in ENDINGS}
    return [entry for entry in found if stem_of(entry.name) not in masks]


def _below(path: Path, folder: Path) -> str:
    """Return a path below a folder with ``/``, without the image's suffix."""
    relative = PurePosixPath(path.relative_to(folder).as_posix())
    return str(relative.with_name(stem_of(relative.name)))


def _of_set(text: str) -> list[Case]:
    """List the items of a MedMNIST file as SPLIT/INDEX."""
    from napari_medgs.io.medmnist.reader import SPLITS, load_set

    match = _SET.match(text)
    assert match is not None
    file, split, index = match["file"], match["split"], match["index"]
    if split is not None and split not in SPLITS:
        raise ParameterError(
            f"{text}: '{split}' is not a split; choose one of {', '.join(SPLITS)}."
        )
    images = load_set(file).images
    if split is not None and split not in images:
        raise FileError(f"{file}: has no '{split}' images; there are {', '.join(images)}.")
    chosen = images if split is None else {split: images[split]}
    if index is not None:
        return [Case(f"{split}/{int(index):05d}", (f"{file}:{split}:{int(index)}",))]
    return [
        Case(f"{part}/{k:05d}", (f"{file}:{part}:{k}",))
        for part, stack in chosen.items()
        for k in range(len(stack))
    ]


def _of_list(path: Path) -> list[Case]:
    # In quotes, as Windows copies paths.
    lines = [re.sub(r'^"(.*)"$', r"\1", line.strip()) for line in _text(path).splitlines()]
    images = [_from(path.parent, line) for line in lines if line and not line.startswith("#")]
    return _named([(None, (image,), None) for image in images])


def _of_table(path: Path) -> list[Case]:
    lines = _text(path).splitlines()
    # Spreadsheets write tabs or, where the comma is in numbers, semicolons.
    first = next((line for line in lines if line.strip()), "")
    delimiter = next((d for d in "\t,;" if d in first), ",")
    reader = csv.DictReader(lines, delimiter=delimiter)
    columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    image_column = next((name for name in IMAGE_COLUMNS if name in columns), None)
    if image_column is None:
        raise FileError(
            f"{path}: the first line must name the columns, one of them 'image' (or 'path'); it "
            f"names {', '.join(columns) or 'nothing'}."
        )
    for name in (image_column, "mask", "name"):
        if columns.count(name) > 1:
            raise FileError(
                f"{path}: the first line names the column '{name}' {columns.count(name)} times; "
                f"contrasts of one image are joined by '{CONTRAST_SEPARATOR}' in one column."
            )
    rows: list[tuple[str | None, tuple[str, ...], str | None]] = []
    for row in reader:
        cells = {key: (row.get(key) or "").strip() for key in (image_column, "mask", "name")}
        if not any(cells.values()):
            continue
        pieces = [p.strip() for p in cells[image_column].split(CONTRAST_SEPARATOR)]
        if not all(pieces):
            raise FileError(f"{path}: line {reader.line_num} names no image.")
        images = tuple(_from(path.parent, piece) for piece in pieces)
        mask = _from(path.parent, cells["mask"]) if cells["mask"] else None
        rows.append((cells["name"] or None, images, mask))
    return _named(rows)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(
            f"{path}: not a text file in UTF-8 ({error.reason}); save it as UTF-8."
        ) from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _from(folder: Path, text: str) -> str:
    """Return a path of a list, which starts at the list's folder."""
    return os.path.normpath(folder / text)


def _named(rows: Sequence[tuple[str | None, tuple[str, ...], str | None]]) -> list[Case]:
    """Name cases by their path below the deepest folder common to all of them."""
    if not rows:
        return []
    parents = [os.path.abspath(os.path.dirname(images[0])) for _, images, _ in rows]
    try:
        common = Path(os.path.commonpath(parents))
    except ValueError:  # on different drives
        common = Path(parents[0])
    cases = []
    for name, images, mask in rows:
        if name is None:
            match = _SET.match(images[0])
            first = Path(os.path.abspath(images[0]))
            if match is not None and match["split"]:
                name = f"{Path(match['file']).stem}/{match['split']}/{match['index'] or ''}"
            elif first.is_relative_to(common):
                name = _below(first, common)
            else:
                name = stem_of(first.name)
        cases.append(Case(name, images, mask))
    return cases


def _check_names(cases: Iterable[Case]) -> None:
    """Refuse names that leave the output folder, and two cases of one name."""
    for case in cases:
        path = PurePosixPath(case.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or not path.parts or ":" in case.name:
            raise ParameterError(f"'{case.name}' cannot be a case's name: it must be a file name.")
    # Some file systems do not tell a.medgs from A.medgs.
    counts = Counter(case.name.casefold() for case in cases)
    twice = [case for case in cases if counts[case.name.casefold()] > 1]
    if twice:
        raise ParameterError(
            f"{twice[0].images[0]} and {twice[1].images[0]} would both be written as "
            f"'{twice[0].name}': give them names of their own (column 'name' of a .csv list)."
        )
