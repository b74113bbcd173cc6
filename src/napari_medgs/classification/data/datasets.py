"""Labeled images in splits: MedMNIST files, and folders of NIfTI files with ``labels.csv``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.naming import naming
from napari_medgs.classification.card import Task
from napari_medgs.errors import FileError, ImageError, LabelError

SPLITS = ("train", "val", "test")
FOLDER_EDGE = {2: 64, 3: 28}
"""Edge to which images of folders are resized."""


@dataclass(frozen=True)
class LabeledDataset:
    """Images with labels.

    Attributes
    ----------
    name : str
    images : dict of str to (N, C, Y, X) or (N, C, Z, Y, X) ndarray
        By split; uint8, or float32 from 0 to 1.
    labels : dict of str to (N, L) ndarray of int64
        L is 1 except for multi-label tasks, whose labels are 0 or 1.
    task : Task
        Kind of labels; its name as text will do.
    class_names : tuple of str
    intensity : str
        How intensities are scaled: "uint8" or "percentile".

    Examples
    --------
    >>> import numpy as np
    >>> images = {"train": np.zeros((4, 1, 28, 28), np.uint8)}
    >>> labels = {"train": np.array([[0], [1], [0], [1]])}
    >>> data = LabeledDataset("mine", images, labels, "binary-class", ("a", "b"))
    >>> data.shape, data.channels, data.task.value
    ((28, 28), 1, 'binary-class')
    """

    name: str
    images: dict[str, NDArray[Any]]
    labels: dict[str, NDArray[np.int64]]
    task: Task
    class_names: tuple[str, ...]
    intensity: str = "uint8"

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", Task(self.task))

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels or voxels of the images."""
        return tuple(int(n) for n in self.images["train"].shape[2:])

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.images["train"].shape[1])

    @property
    def multi_label(self) -> bool:
        """Whether every class is a binary label of its own."""
        return self.task is Task.MULTI_LABEL

    @property
    def is_shape(self) -> bool:
        """Whether the images are binary volumes: shapes instead of gray values."""
        train = self.images["train"]
        if self.channels != 1 or train.ndim != 5:
            return False
        return bool(np.isin(train[: min(len(train), 64)], (0, train.max())).all())

    def scaled_images(self, split: str) -> NDArray[np.float32]:
        """Return a split's images as float32 from 0 to 1."""
        images = self.images[split]
        scale = np.float32(255 if images.dtype == np.uint8 else 1)
        return images.astype(np.float32) / scale

    def check(self, *, needed: tuple[str, ...] = ("train",)) -> None:
        """Check that a classifier can be trained on the dataset.

        Raises
        ------
        LabelError
            When a split has labels of one class only, or labels out of range.
        FileError
            When a split is missing, or counts differ.
        """
        for split in needed:
            if split not in self.images or not len(self.images[split]):
                raise FileError(f"{self.name}: there is no '{split}' split.")
        for split, labels in self.labels.items():
            if len(labels) != len(self.images[split]):
                raise FileError(f"{self.name}: '{split}' has {len(self.images[split])} images and "
                                f"{len(labels)} labels.")  # fmt: skip
            highest = 1 if self.multi_label else len(self.class_names) - 1
            if labels.size and (labels.min() < 0 or labels.max() > highest):
                raise LabelError(f"{self.name}: labels of '{split}' are not from 0 to {highest}.")
            if self.multi_label and labels.shape[1] != len(self.class_names):
                raise LabelError(f"{self.name}: {labels.shape[1]} labels per image do not fit "
                                 f"{len(self.class_names)} class names.")  # fmt: skip
            varied = (labels.min(0) != labels.max(0)).any() if len(labels) else True
            if split in needed and not varied:
                raise LabelError(f"{self.name}: '{split}' has images of one class only; there is "
                                 "nothing to tell apart.")  # fmt: skip


def load_dataset(
    source: str | Path, *, size: int = 28, cache: str | None = None
) -> LabeledDataset:
    """Load a labeled dataset.

    Parameters
    ----------
    source : str or Path
        A MedMNIST name (downloaded once), an ``.npz`` file of its layout, or a folder with
        ``labels.csv`` (columns path, label, split) and NIfTI files.
    size : int
        Image size to download when a name is given.
    cache : str, optional
        Folder of downloads.

    Returns
    -------
    LabeledDataset

    Raises
    ------
    FileError, LabelError, ImageError, ParameterError
        When it cannot be used; the message says why.

    See Also
    --------
    napari_medgs.io.medmnist.reader.load_set : reads MedMNIST files.
    """
    if Path(source).is_dir():
        found = _folder(Path(source))
    else:
        from napari_medgs.io.medmnist.reader import load_set

        raw = load_set(source, size=size, cache=cache)
        images = {}
        for split, array in raw.images.items():
            planes = np.moveaxis(array, -1, 1) if raw.is_rgb else array[:, None]
            if planes.dtype != np.uint8:
                raise ImageError(f"{raw.name}: images of {planes.dtype}; MedMNIST's are uint8.")
            images[split] = planes
        found = LabeledDataset(raw.name, images, raw.labels, Task(raw.task), raw.class_names)
    found.check()
    return found


def _folder(folder: Path) -> LabeledDataset:
    """Read a folder of NIfTI files whose labels are in ``labels.csv``."""
    from napari_medgs.classification.data.preprocess import resize_image
    from napari_medgs.io import read_volume

    rows = _rows(folder / "labels.csv")
    names = sorted({row["label"] for row in rows}, key=_numeric_key)
    images: dict[str, list[NDArray[Any]]] = {}
    labels: dict[str, list[int]] = {}
    first: tuple[int, int] | None = None
    for row in rows:
        volume = read_volume(folder / row["path"])
        with naming(image=folder / row["path"]):
            volume = volume.prepared()
        ndim = 2 if volume.shape[0] == 1 else 3
        if first is None:
            first = (volume.channels, ndim)
        if (volume.channels, ndim) != first:
            raise ImageError(
                f"{row['path']}: {volume.channels} channels and {ndim} axes, where the first "
                f"image has {first[0]} and {first[1]}."
            )
        edge = FOLDER_EDGE[ndim]
        with naming(image=folder / row["path"]):
            resized = resize_image(volume.data, (edge,) * ndim, "percentile")
        images.setdefault(row["split"], []).append(resized)
        labels.setdefault(row["split"], []).append(names.index(row["label"]))
    return LabeledDataset(
        folder.name,
        {s: np.stack(images[s]) for s in SPLITS if s in images},
        {s: np.asarray(labels[s], np.int64)[:, None] for s in SPLITS if s in labels},
        Task.BINARY if len(names) == 2 else Task.MULTI_CLASS,
        tuple(names),
        "percentile",
    )


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise FileError(f"{table}: missing; a folder of images needs it (path,label,split).")
    try:
        with table.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            columns = [str(c).strip() for c in reader.fieldnames or ()]
            missing = {"path", "label", "split"} - set(columns)
            if missing:
                raise FileError(f"{table}: lacks the column {', '.join(sorted(missing))}.")
            rows = [{str(k).strip(): str(v or "").strip() for k, v in r.items()} for r in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{table}: no table of text ({error}).") from error
    splits: dict[Path, str] = {}
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise FileError(f"{table}, line {number}: split '{row['split']}' is not train, val or "
                            "test.")  # fmt: skip
        if not row["label"]:
            raise LabelError(f"{table}, line {number}: the label is missing.")
        if not (table.parent / row["path"]).is_file():
            raise FileError(f"{table}, line {number}: no such file {row['path']}.")
        other = splits.setdefault((table.parent / row["path"]).resolve(), row["split"])
        if other != row["split"]:
            raise FileError(
                f"{table}, line {number}: {row['path']} is in '{other}', too; scores on images "
                "that were trained on say nothing."
            )
    known = {row["label"] for row in rows if row["split"] == "train"}
    if not known:
        raise FileError(f"{table}: there is no 'train' split.")
    if len(known) < 2:
        raise LabelError(f"{table}: one class only in 'train'; there is nothing to tell apart.")
    unknown = {row["label"] for row in rows} - known
    if unknown:
        raise LabelError(f"{table}: no image of '{sorted(unknown)[0]}' is in 'train'.")
    return rows


def _numeric_key(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)
