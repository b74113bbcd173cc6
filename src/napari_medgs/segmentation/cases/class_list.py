"""Lists of classes with names, colors and codes, as JSON files to begin the next case with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_medgs._util.records import checked
from napari_medgs.errors import FileError, LabelError, MedGSError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.json_files import read_record

FORMAT, VERSION = "napari-medgs classes", 1
LARGEST_VALUE = 65_535
MOST_CLASSES = 249
MOST_LETTERS = 200
LARGEST_FILE = 2**20

Color = tuple[float, float, float]
Code = tuple[str, str, str]
"""A coded concept: value, coding scheme, meaning; ``("10200004", "SCT", "Liver")``."""


@dataclass(frozen=True)
class SegmentClass:
    """One class of a segmentation.

    Attributes
    ----------
    value : int
        Its label value, 1 to 65,535.
    name : str
    color : (red, green, blue), optional
        From 0 to 1.
    category, kind : (value, scheme, meaning), optional
        Codes of its category and type, such as those of SNOMED CT; DICOM segmentations keep them.

    Raises
    ------
    LabelError
        When one of them cannot be used.
    """

    value: int
    name: str
    color: Color | None = None
    category: Code | None = None
    kind: Code | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.value <= LARGEST_VALUE:
            raise LabelError(
                f"The class {self.name!r} has the value {self.value}; values are 1 to "
                f"{LARGEST_VALUE:,}."
            )
        if not self.name.strip() or len(self.name) > MOST_LETTERS or "\n" in self.name:
            raise LabelError(
                f"The class of value {self.value} needs a name of one line with at most "
                f"{MOST_LETTERS} letters."
            )
        if self.color is not None and not all(0 <= c <= 1 for c in self.color):
            raise LabelError(f"The color of {self.name!r} must have parts from 0 to 1.")
        for code in (self.category, self.kind):
            if code is not None and not (code[0].strip() and code[1].strip()):
                raise LabelError(f"A code of {self.name!r} lacks its value or its coding scheme.")

    @classmethod
    def from_dict(cls, record: Any) -> SegmentClass:
        """Make a class of a JSON object; see :meth:`to_dict`.

        Raises
        ------
        ParameterError, LabelError
            When an entry is missing or wrong.
        """
        what = "a class"
        record = checked(dict[str, Any], record, what)
        entries = {
            name: checked(kind, record.get(key, default), f"{what}.{key}")
            for name, key, kind, default in (
                ("value", "value", int, None),
                ("name", "name", str, None),
                ("color", "color", Color | None, None),
                ("category", "category", Code | None, None),
                ("kind", "type", Code | None, None),
            )
        }
        return cls(**entries)

    def to_dict(self) -> dict[str, Any]:
        """Return the class as a JSON object, without what is not known."""
        record: dict[str, Any] = {"value": self.value, "name": self.name}
        if self.color is not None:
            record["color"] = [round(c, 4) for c in self.color]
        for key, code in (("category", self.category), ("type", self.kind)):
            if code is not None:
                record[key] = list(code)
        return record


@dataclass(frozen=True)
class ClassList:
    """The classes of a segmentation, in the order of their values.

    Attributes
    ----------
    classes : tuple of SegmentClass

    Raises
    ------
    LabelError
        When two classes have one value or one name, or there are more than 249.

    Examples
    --------
    >>> from napari_medgs.segmentation import ClassList, SegmentClass
    >>> liver = SegmentClass(1, "liver", (0.8, 0.3, 0.2), kind=("10200004", "SCT", "Liver"))
    >>> ClassList((SegmentClass(2, "spleen"), liver)).names
    {1: 'liver', 2: 'spleen'}
    """

    classes: tuple[SegmentClass, ...] = field(default=())

    def __post_init__(self) -> None:
        classes = tuple(sorted(self.classes, key=lambda one: one.value))
        object.__setattr__(self, "classes", classes)
        if len(classes) > MOST_CLASSES:
            raise LabelError(f"At most {MOST_CLASSES} classes are possible, not {len(classes)}.")
        values: dict[int, str] = {}
        names: dict[str, int] = {}
        for one in classes:
            if one.value in values:
                raise LabelError(
                    f"{values[one.value]!r} and {one.name!r} have the same value, {one.value}."
                )
            if one.name.casefold() in names:
                raise LabelError(
                    f"The values {names[one.name.casefold()]} and {one.value} have the same name, "
                    f"{one.name!r}."
                )
            values[one.value], names[one.name.casefold()] = one.name, one.value

    @classmethod
    def of(
        cls,
        names: Mapping[int, str],
        colors: Mapping[int, Iterable[float]] | None = None,
        codes: Mapping[int, tuple[Code | None, Code | None]] | None = None,
    ) -> ClassList:
        """Make a list of tables by label value.

        Parameters
        ----------
        names : mapping of int to str
        colors : mapping of int to (red, green, blue), optional
            From 0 to 1; what follows the third part is left out.
        codes : mapping of int to (category, type), optional
        """
        classes = []
        for value, name in names.items():
            color = tuple(float(c) for c in (colors or {}).get(value, ()))[:3]
            category, kind = (codes or {}).get(value) or (None, None)
            rgb = (color[0], color[1], color[2]) if len(color) == 3 else None
            classes.append(SegmentClass(int(value), str(name), rgb, category, kind))
        return cls(tuple(classes))

    @property
    def names(self) -> dict[int, str]:
        """Names by label value."""
        return {one.value: one.name for one in self.classes}

    @property
    def colors(self) -> dict[int, Color]:
        """Colors by label value, of those that have one."""
        return {one.value: one.color for one in self.classes if one.color is not None}

    @property
    def codes(self) -> dict[int, tuple[Code | None, Code | None]]:
        """Category and type by label value, of those that have a code."""
        return {
            one.value: (one.category, one.kind)
            for one in self.classes
            if one.category is not None or one.kind is not None
        }

    def merged(self, other: ClassList) -> ClassList:
        """Return the classes of both lists; what this one says of a class stays.

        Raises
        ------
        LabelError
            When a value has two names, or a name two values.
        """
        names = self.names
        for one in other.classes:
            mine = names.get(one.value, one.name)
            if mine.casefold() != one.name.casefold():
                raise LabelError(
                    f"The value {one.value} is {mine!r} there and {one.name!r} here; rename the "
                    "class, or give it another value."
                )
        return ClassList((*self.classes, *(c for c in other.classes if c.value not in names)))

    @classmethod
    def from_dict(cls, record: Any) -> ClassList:
        """Make a list of a JSON object ``{"classes": [..]}``.

        Raises
        ------
        ParameterError, LabelError
            When an entry is missing or wrong.
        """
        record = checked(dict[str, Any], record, "the list of classes")
        return cls(checked(tuple[SegmentClass, ...], record.get("classes"), "classes"))

    def to_dict(self) -> dict[str, Any]:
        """Return the list as a JSON object."""
        classes = [one.to_dict() for one in self.classes]
        return {"format": FORMAT, "version": VERSION, "classes": classes}


def save_classes(path: str | Path, classes: ClassList) -> Path:
    """Write a list of classes to a JSON file, atomically.

    Parameters
    ----------
    path : str or Path
    classes : ClassList

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from napari_medgs.segmentation import ClassList, load_classes, save_classes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_classes(save_classes(folder + "/head.json", ClassList.of({1: "bone"}))).names
    {1: 'bone'}
    """
    path = Path(path)
    text = json.dumps(classes.to_dict(), indent=2, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def load_classes(path: str | Path) -> ClassList:
    """Read a list of classes.

    Parameters
    ----------
    path : str or Path
        A JSON file that :func:`save_classes` wrote.

    Returns
    -------
    ClassList

    Raises
    ------
    FileError, FormatVersionError
        When it is no such file, damaged, or of a newer version.

    Examples
    --------
    >>> import tempfile
    >>> from napari_medgs.segmentation import ClassList, load_classes, save_classes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_classes(folder + "/head.json", ClassList.of({1: "bone", 2: "fat"}))
    ...     load_classes(path).names
    {1: 'bone', 2: 'fat'}
    """
    record = read_record(
        path, "a list of classes", kind=FORMAT, version=VERSION, largest=LARGEST_FILE
    )
    try:
        return ClassList.from_dict(record)
    except MedGSError as error:
        raise FileError(f"{path}: the list of classes is damaged ({error}).") from None
