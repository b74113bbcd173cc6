"""Where training cases come from: nnU-Net's layout, BIDS, folders, tables."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_medgs._util.records import parse_json
from napari_medgs.errors import FileError, LabelError
from napari_medgs.io.cases import ENDINGS, IMAGES, Case, find_cases, stem_of
from napari_medgs.io.folders import is_broken_link, missing, natural_key, visible_entries
from napari_medgs.io.formats import read_label_names
from napari_medgs.io.label_names import given_names

PAIRS = (
    ("images", "labels"), ("images", "masks"), ("images", "segmentations"), ("image", "label"),
    ("image", "mask"), ("imagesTr", "labelsTr"),
)  # fmt: skip
"""Folders of images with the folders of their masks."""
TABLES = (".csv", ".tsv", ".txt", ".lst", ".npz")
"""Suffixes of files that name cases."""
SLICER = ".seg.nrrd"
MASKS = (".nii.gz", ".nii", ".nrrd", SLICER, ".mha", ".mhd")
"""Suffixes of masks, the first that is there."""
_CONTRAST = re.compile(r"^(?P<case>.+)_(?P<number>\d{4})$")
_ENTITY = re.compile(r"(?P<key>[a-zA-Z]+)-(?P<value>[a-zA-Z0-9]+)")
_BIDS_MASK = re.compile(r"(_dseg|_mask|_seg|_probseg)$")
_LARGEST_JSON = 64 * 2**20


@dataclass(frozen=True)
class TrainingCase:
    """An image and its mask.

    Attributes
    ----------
    name : str
    images : tuple of str
        One file a contrast, or one with all contrasts.
    mask : str
    resample : bool
        Bring further contrasts and the mask onto the grid of the first image.
    """

    name: str
    images: tuple[str, ...]
    mask: str
    resample: bool = False


@dataclass(frozen=True)
class TrainingSource:
    """The cases of a data set and what it says of itself.

    Attributes
    ----------
    cases : tuple of TrainingCase
    class_names : dict of int to str
        By label value; empty where the data set does not name its classes.
    channel_names : tuple of str
        Empty where it does not name its contrasts.
    place : str
        The folder or file.
    without_mask : tuple of str
        Names of a folder's images that are no cases, as they have no mask.
    """

    cases: tuple[TrainingCase, ...]
    class_names: dict[int, str]
    channel_names: tuple[str, ...]
    place: str
    without_mask: tuple[str, ...] = ()


def find_training_cases(
    source: str | Path,
    *,
    mask: str | None = None,
    pattern: str | None = None,
    resample: bool = False,
) -> TrainingSource:
    """Return the images with masks of a data set, in a fixed order.

    Parameters
    ----------
    source : str or Path
        A folder in nnU-Net's raw layout (``imagesTr``, ``labelsTr``, ``dataset.json``), which is
        that of accepted cases, too; a BIDS data set with masks in ``derivatives``; a folder with
        ``images`` and ``labels`` of the same names, or with images beside their masks
        (``NAME.nii.gz`` and ``NAME_seg.nii.gz``); a ``.csv`` or ``.tsv`` table with the columns
        ``image`` (contrasts joined by ``;``) and ``mask``.
    mask : str, optional
        Path of an image's mask, relative to the image's folder, as
        :func:`napari_medgs.io.cases.find_cases` takes it.
    pattern : str, optional
        Which images of a folder, such as ``**/*_T1w.nii.gz``.
    resample : bool
        Bring further contrasts of other grids onto that of a case's first image, linearly, and
        masks by the nearest label, instead of refusing them.

    Returns
    -------
    TrainingSource
        With at least one case.

    Raises
    ------
    FileError
        When there is no such source, or nothing in it that can be trained on.
    LabelError
        When its description of the classes cannot be used.
    ParameterError
        When a pattern is malformed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.nii.gz", "a_seg.nii.gz", "b.nii.gz"):
    ...         Path(folder, name).touch()
    ...     [case.name for case in find_training_cases(folder).cases]
    ['a']
    """
    found = _found(source, mask, pattern)
    if not resample:
        return found
    return replace(found, cases=tuple(replace(case, resample=True) for case in found.cases))


def _found(source: str | Path, mask: str | None, pattern: str | None) -> TrainingSource:
    """Return the cases of a data set as its layout has them."""
    place = Path(os.fspath(source))
    text = str(source)
    if not place.exists():
        raise missing(text, "file or folder")
    if place.is_file() and place.suffix.lower() not in TABLES:
        raise FileError(
            f"{text}: training needs a folder of images with masks, or a table (.csv) with the "
            "columns image and mask."
        )
    if not place.is_dir() or mask is not None or pattern is not None:
        found = find_cases(place, pattern=pattern, mask=mask or _guessed(place, pattern))
        return _source(_with_masks(found, text), [case.name for case in found], text)
    if (place / "imagesTr").is_dir():
        return _nnunet(place)
    if (place / "dataset_description.json").is_file() or (place / "derivatives").is_dir():
        return TrainingSource(_bids(place), {}, (), text)
    for images, labels in PAIRS:
        if (place / images).is_dir() and (place / labels).is_dir():
            pairs = _same_names(place / images, place / labels)
            names = [stem_of(path.name) for path in _images(place / images)]
            return _source(pairs, names, text)
    side_by_side = _side_by_side(place)
    if not side_by_side:
        raise FileError(
            f"{text}: no images with masks. Expected are imagesTr and labelsTr, images and "
            "labels, NAME.nii.gz beside NAME_seg.nii.gz, BIDS derivatives, or a table (.csv) with "
            "the columns image and mask; on the command line also --mask with a pattern such as "
            "'../labels/{name}.nii.gz'."
        )
    return TrainingSource(side_by_side, {}, (), text)


def _source(cases: tuple[TrainingCase, ...], images: list[str], text: str) -> TrainingSource:
    """Return the cases of a folder, and which of its images have no mask."""
    known = {case.name for case in cases}
    return TrainingSource(cases, {}, (), text, tuple(n for n in images if n not in known))


def _guessed(place: Path, pattern: str | None) -> str | None:
    """Return the pattern of masks beside the images, for a pattern of images without one."""
    if not place.is_dir() or pattern is None:
        return None
    for image in sorted(place.glob(pattern)):
        for ending in ENDINGS:
            suffix = image.name[len(stem_of(image.name)) :]
            if (image.parent / f"{stem_of(image.name)}{ending}{suffix}").exists():
                return f"{{name}}{ending}{suffix}"
    return None


def _with_masks(cases: list[Case], text: str) -> tuple[TrainingCase, ...]:
    """Return the cases whose mask exists; a table must name one for each."""
    found = []
    for case in cases:
        if case.mask is None:
            raise FileError(
                f"{text}: {case.name} has no mask; a table needs the column 'mask', a folder "
                "--mask with a pattern."
            )
        if os.path.lexists(case.mask) or not Path(text).is_dir():
            found.append(TrainingCase(case.name, case.images, case.mask))
    if not found:
        raise FileError(f"{text}: none of the {len(cases)} images has a mask ({cases[0].mask}).")
    return tuple(found)


def _nnunet(place: Path) -> TrainingSource:
    """Read nnU-Net's raw layout, or that of the Medical Segmentation Decathlon."""
    record = _json(place / "dataset.json")
    contrasts: defaultdict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in _images(place / "imagesTr"):
        stem = stem_of(path.name)
        match = _CONTRAST.match(stem)
        masked = match is not None and not _mask_for(place / "labelsTr", stem)
        name, number = (match["case"], int(match["number"])) if match and masked else (stem, 0)
        contrasts[name].append((number, path))
    cases = []
    for name in sorted(contrasts, key=natural_key):
        mask = _mask_for(place / "labelsTr", name)
        if mask is not None:
            images = tuple(str(path) for _, path in sorted(contrasts[name]))
            cases.append(TrainingCase(name, images, str(mask)))
    if not cases:
        raise FileError(f"{place}: no image of imagesTr has a mask of its name in labelsTr.")
    channels = record.get("channel_names", record.get("modality", {}))
    if not isinstance(channels, Mapping) or not all(isinstance(v, str) for v in channels.values()):
        channels = {}
    names = tuple(channels[key] for key in sorted(channels, key=natural_key))
    source = _source(tuple(cases), sorted(contrasts, key=natural_key), str(place))
    return replace(source, class_names=_classes(record, place), channel_names=names)


def _classes(record: Mapping[str, Any], place: Path) -> dict[int, str]:
    """Return names by value from nnU-Net's ``{name: value}`` or the older ``{value: name}``."""
    labels = record.get("labels")
    if not isinstance(labels, Mapping):
        return {}
    found = {}
    for key, value in labels.items():
        if isinstance(value, (list, tuple)):
            raise LabelError(
                f"{place / 'dataset.json'}: the class {key!r} is made of several values (a "
                "region); write each value as a class of its own."
            )
        number, name = (key, value) if isinstance(value, str) else (value, key)
        try:
            found[int(number)] = str(name)
        except (TypeError, ValueError):
            raise LabelError(
                f"{place / 'dataset.json'}: the value of the class {key!r} is no whole number."
            ) from None
    found.pop(0, None)
    return {value: found[value] for value in sorted(found) if found[value] != "ignore"}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("it is too large")
        record = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: damaged ({error}).") from None
    if not isinstance(record, dict):
        raise FileError(f"{path}: does not describe a data set.")
    return record


def _images(folder: Path) -> list[Path]:
    """Return the images of a folder, as a batch would find them."""
    try:
        return [Path(case.images[0]) for case in find_cases(folder)]
    except FileError:
        return []


def _mask_for(folder: Path, name: str, *, beside: bool = False) -> Path | None:
    """Return the mask of a name in a folder, with any ending of a name and of a file.

    Beside its image, a file of just its name is a mask only as 3D Slicer writes them.
    """
    for ending in ("", *ENDINGS):
        for suffix in (SLICER,) if beside and not ending else MASKS:
            path = folder / f"{name}{ending}{suffix}"
            if path.is_file() or is_broken_link(path):
                return path
    return None


def _same_names(images: Path, labels: Path) -> tuple[TrainingCase, ...]:
    cases = []
    for path in _images(images):
        name = stem_of(path.name)
        mask = _mask_for(labels, name)
        if mask is not None:
            cases.append(TrainingCase(name, (str(path),), str(mask)))
    if not cases and not _images(images):
        raise FileError(
            f"{images}: holds no image that training reads ({', '.join(IMAGES)}); convert others, "
            "such as PNG files, first: napari-medgs convert."
        )
    if not cases:
        raise FileError(f"{images}: no image has a mask of its name in {labels}.")
    return tuple(cases)


def _side_by_side(place: Path) -> tuple[TrainingCase, ...]:
    """Pair images with masks in one folder, or in one folder a case."""
    found = []
    for folder in (place, *(p for p in visible_entries(place) if p.is_dir())):
        for path in _images(folder):
            name = stem_of(path.name)
            mask = _mask_for(folder, name, beside=True)
            if mask is not None:
                shown = name if folder == place else f"{folder.name}/{name}"
                found.append(TrainingCase(shown, (str(path),), str(mask)))
    return tuple(found)


def _bids(place: Path) -> tuple[TrainingCase, ...]:
    """Pair the masks of BIDS derivatives with the raw images of their subject and session."""
    masks = [
        path
        for path in sorted((place / "derivatives").rglob("sub-*.nii*"))
        if _BIDS_MASK.search(stem_of(path.name)) and not path.name.startswith(".")
    ]
    raw: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(place.glob("sub-*/**/*.nii*")):
        raw[_subject(path)].append(path)
    cases = []
    for mask in masks:
        images = _of_mask(mask, raw[_subject(mask)])
        if images:
            name = "_".join(part for part in _subject(mask) if part)
            cases.append(TrainingCase(name, tuple(map(str, images)), str(mask)))
    twice = [name for name, n in Counter(case.name for case in cases).items() if n > 1]
    if twice:
        here = [Path(case.mask).name for case in cases if case.name == twice[0]]
        raise FileError(
            f"{place}: {twice[0]} has several masks ({', '.join(here[:3])}); choose with "
            "--pattern for the images and --mask for their masks."
        )
    if not cases:
        raise FileError(
            f"{place}: no mask (_dseg, _mask or _seg) in derivatives belongs to an image."
        )
    return tuple(cases)


def _subject(path: Path) -> tuple[str, str]:
    """Return subject and session of a BIDS name."""
    entities = {m["key"]: m["value"] for m in _ENTITY.finditer(path.name)}
    session = entities.get("ses")
    return f"sub-{entities.get('sub', '')}", f"ses-{session}" if session else ""


def _of_mask(mask: Path, images: list[Path]) -> list[Path]:
    """Return the image that a mask's name begins with, else all contrasts of the session."""
    stem = stem_of(mask.name)
    begins = [p for p in images if stem.startswith(stem_of(p.name))]
    if begins:
        return [max(begins, key=lambda p: len(p.name))]
    return sorted(images, key=lambda p: natural_key(p.name.rsplit("_", 1)[-1]))


def names_of_masks(cases: tuple[TrainingCase, ...]) -> dict[int, str]:
    """Return the names that masks, or files beside them, give to label values.

    Raises
    ------
    LabelError
        When two masks name a value differently.
    """
    names: dict[int, tuple[str, str]] = {}
    for case in cases:
        if not Path(case.mask).exists():
            continue
        for value, name in given_names(read_label_names(case.mask)).items():
            known = names.setdefault(value, (name, case.name))
            if known[0].casefold() != name.casefold():
                raise LabelError(
                    f"The classes differ: the value {value} is {known[0]!r} in {known[1]} and "
                    f"{name!r} in {case.name}; a value must have one class, with one name, in "
                    "all masks."
                )
    return {value: name for value, (name, _) in names.items() if value}
