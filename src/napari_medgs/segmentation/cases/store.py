"""A folder of accepted cases: image, mask, classes and session of each.

The layout is that of nnU-Net's raw data sets, so that training finds the images and the masks::

    dataset.json                  channels, classes, number of cases
    classes.json                  names, colors and codes of the classes
    imagesTr/NAME_0000.nii.gz     one file a contrast
    labelsTr/NAME.nii.gz          the mask
    sessions/NAME.json            every step that led to the mask, where it is known
    cases/NAME.json               when and of which image the case was made

A case counts once its record in ``cases/`` is there; the record is written last.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import checked_record
from napari_medgs.data.volume import Volume
from napari_medgs.errors import (
    FileError,
    GeometryError,
    LabelError,
    MedGSError,
)
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.folders import check_folder_of
from napari_medgs.io.json_files import plain_json, read_record
from napari_medgs.segmentation.cases.case_names import (
    MOST_LETTERS,
    case_name,
    checked_name,
    is_name,
)
from napari_medgs.segmentation.cases.case_record import FORMAT, VERSION, CaseRecord, image_digest
from napari_medgs.segmentation.cases.class_list import (
    LARGEST_FILE,
    ClassList,
    load_classes,
    save_classes,
)
from napari_medgs.segmentation.session.priors import prior_files
from napari_medgs.segmentation.session.replay import load_session, save_session
from napari_medgs.segmentation.session.session import Session

SUFFIX = ".nii.gz"
_FOLDERS = ("imagesTr", "labelsTr", "sessions", "cases")
_STAGING = ".incoming-"


class CaseStore:
    """Keeps accepted cases in a folder, to go on with or to train on later.

    Parameters
    ----------
    folder : str or Path
        Made when the first case is added; the folder above it must be there.

    Examples
    --------
    >>> import tempfile
    >>> import napari_medgs as mg
    >>> from napari_medgs.segmentation import CaseStore, ClassList
    >>> head = mg.make_phantom(spacing=12.0)
    >>> image = mg.Volume(head.image[None], head.grid)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = CaseStore(folder + "/heads")
    ...     labels = (head.labels == 5).astype("uint8")
    ...     record = store.add("head_1", image, labels, ClassList.of({1: "ventricles"}))
    ...     store.names, bool((store.labels("head_1") == labels).all())
    (['head_1'], True)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    # Where things are

    def image_files(self, name: str) -> list[Path]:
        """Return the image files of a case, one a contrast."""
        count = len(self.record(name).channels)
        return [self.folder / "imagesTr" / f"{name}_{k:04d}{SUFFIX}" for k in range(count)]

    def mask_file(self, name: str) -> Path:
        """Return the mask's file of a case."""
        return self.folder / "labelsTr" / f"{checked_name(name)}{SUFFIX}"

    def session_file(self, name: str) -> Path:
        """Return where the session of a case is kept."""
        return self.folder / "sessions" / f"{checked_name(name)}.json"

    def _record_file(self, name: str) -> Path:
        return self.folder / "cases" / f"{checked_name(name)}.json"

    # What is in it

    @property
    def names(self) -> list[str]:
        """The names of the cases, sorted."""
        place = self.folder / "cases"
        found = place.glob("*.json") if place.is_dir() else ()
        return sorted(p.stem for p in found if is_name(p.stem))

    @property
    def classes(self) -> ClassList:
        """The classes of all cases; none before the first one.

        Raises
        ------
        FileError
            When their file is damaged.
        """
        path = self.folder / "classes.json"
        return load_classes(path) if path.exists() else ClassList()

    def record(self, name: str) -> CaseRecord:
        """Return what is known of a case.

        Raises
        ------
        FileError, FormatVersionError
            When there is no such case, or its record is damaged.
        """
        path = self._record_file(name)
        if not path.is_file():
            raise FileError(f"{self.folder}: has no case {name!r}.")
        found = read_case_record(path)
        if found.name != name:
            raise FileError(f"{path}: the record is of another case, {found.name!r}.")
        return found

    def volume(self, name: str) -> Volume:
        """Read the image of a case.

        Raises
        ------
        MedGSError
            When it is not there or damaged.
        """
        from napari_medgs.io import read_volumes

        return read_volumes([str(path) for path in self.image_files(name)])

    def labels(self, name: str) -> NDArray[Any]:
        """Read the mask of a case, (Z, Y, X) on the canonical grid of its image.

        Raises
        ------
        MedGSError
            When it is not there or damaged.
        """
        from napari_medgs.io import read_labels

        self.record(name)
        return read_labels(self.mask_file(name))[0]

    def session(self, name: str) -> Session | None:
        """Read the session of a case; None where it was not kept.

        Raises
        ------
        MedGSError
            When it is damaged.
        """
        return load_session(self.session_file(name))[0] if self.record(name).session else None

    # Names

    def name_for(self, volume: Volume, wanted: str) -> str:
        """Return the name of an image's case: its old one, else a free one.

        Parameters
        ----------
        volume : Volume
        wanted : str
            Text to make a new name of, such as the image's file name without its ending.
        """
        key = image_digest(volume)
        taken = set()
        for name in self.names:
            with suppress(FileError):
                if self.record(name).digest == key:
                    return name
            taken.add(name.casefold())
        base = case_name(wanted)
        name, k = base, 1
        while name.casefold() in taken:
            k += 1
            name = f"{base[: MOST_LETTERS - 5]}-{k}"
        return name

    # Adding and removing

    def add(
        self,
        name: str,
        volume: Volume,
        labels: NDArray[Any],
        classes: ClassList,
        *,
        session: Session | None = None,
        images: Iterable[str] = (),
    ) -> CaseRecord:
        """Keep a case; one of the same name and image is replaced.

        Parameters
        ----------
        name : str
            Letters, digits, ``-``, ``_`` and ``.``; see :meth:`name_for`.
        volume : Volume
        labels : (Z, Y, X) ndarray of int
            The mask, on the grid of the volume.
        classes : ClassList
            Of all values of the mask but 0.
        session : Session, optional
        images : iterable of str
            Where the contrasts came from.

        Returns
        -------
        CaseRecord

        Raises
        ------
        LabelError
            When the mask is empty, has a value that is no class, or a class is called otherwise
            in the store.
        GeometryError
            When mask and image differ in shape.
        FileError
            When the name cannot be used or is another image's, or the disk refuses.
        """
        from napari_medgs.io import as_labels, write_image, write_labels

        checked_name(name)
        labels = as_labels(labels)
        if labels.shape != volume.shape:
            raise GeometryError(f"The mask has shape {labels.shape}, the image {volume.shape}.")
        values = {int(v) for v in np.unique(labels)} - {0}
        if not values:
            raise LabelError("The mask is empty: there is nothing to keep.")
        if unknown := values - set(classes.names):
            listed = ", ".join(str(v) for v in sorted(unknown)[:9])
            raise LabelError(f"The mask holds values that are no class: {listed}.")
        merged = self._merged(classes)
        key = image_digest(volume)
        self._check_free(name, key, volume.channel_names)
        record = CaseRecord(
            name, tuple(images), volume.channel_names, key, time.time(), session is not None
        )
        with self._staging() as staged:
            for k in range(volume.channels):
                target = staged / "imagesTr" / f"{name}_{k:04d}{SUFFIX}"
                write_image(target, volume.channel(k), volume.grid)
            mask = staged / "labelsTr" / f"{name}{SUFFIX}"
            write_labels(mask, labels, volume.grid, classes.names, colors=classes.colors)
            if session is not None:
                # A file beside a session would have to be kept, too; Gaussians are fitted anew.
                kept = session.copy_for_saving()
                kept.is_current, kept.field = session.is_current, ""
                save_session(kept, staged / "sessions" / f"{name}.json")
            self._record_file(name).unlink(missing_ok=True)
            if session is None:
                self.session_file(name).unlink(missing_ok=True)
            for path in sorted(p for p in staged.rglob("*") if p.is_file()):
                os.replace(path, self.folder / path.relative_to(staged))
        save_classes(self.folder / "classes.json", merged)
        _write(self._record_file(name), {"format": FORMAT, "version": VERSION, **asdict(record)})
        self._write_dataset(merged, volume.channel_names)
        return record

    def remove(self, name: str) -> None:
        """Delete a case with its files.

        Raises
        ------
        FileError
            When there is no such case.
        """
        from napari_medgs.io.label_names import sidecar_path

        record, mask, log = self.record(name), self.mask_file(name), self.session_file(name)
        images = self.image_files(name)
        self._record_file(name).unlink()
        for path in (*images, mask, sidecar_path(mask), log, *prior_files(log)):
            path.unlink(missing_ok=True)
        self._write_dataset(self.classes, record.channels)

    def _merged(self, classes: ClassList) -> ClassList:
        try:
            return self.classes.merged(classes)
        except LabelError as error:
            raise LabelError(f"{self.folder}: {error}") from None

    def _check_free(self, name: str, key: str, channels: tuple[str, ...]) -> None:
        """Refuse the name of another image, and another number of contrasts."""
        for known in self.names:
            record = self.record(known)
            if known.casefold() == name.casefold() and (known != name or record.digest != key):
                raise FileError(f"{self.folder}: the case {known!r} is of another image.")
            if len(record.channels) != len(channels):
                raise GeometryError(
                    f"{self.folder}: its cases have {len(record.channels)} contrasts, this one "
                    f"{len(channels)}; choose another folder."
                )

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a folder to write into; what a killed process left is removed first."""
        check_folder_of(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise FileError(f"{self.folder}: is a file; choose a folder for the cases.")
        staged = self.folder / f"{_STAGING}{os.getpid()}-{time.time_ns():x}"
        try:
            for part in _FOLDERS:
                (self.folder / part).mkdir(parents=True, exist_ok=True)
                (staged / part).mkdir(parents=True)
            self._sweep(staged)
            yield staged
        except OSError as error:
            raise FileError(
                f"{self.folder}: cannot be written ({error.strerror or error})."
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _sweep(self, mine: Path) -> None:
        import psutil

        for left in self.folder.glob(f"{_STAGING}*"):
            owner = left.name.removeprefix(_STAGING).partition("-")[0]
            ended = owner.isdecimal() and not psutil.pid_exists(int(owner))
            if left != mine and ended:
                shutil.rmtree(left, ignore_errors=True)

    def _write_dataset(self, classes: ClassList, channels: Iterable[str]) -> None:
        """Write what nnU-Net wants to know of a data set."""
        labels = {"background": 0} | {name: value for value, name in classes.names.items()}
        record = {
            "channel_names": {str(k): name for k, name in enumerate(channels)},
            "labels": labels,
            "numTraining": len(self.names),
            "file_ending": SUFFIX,
        }
        _write(self.folder / "dataset.json", record)


def read_case_record(path: str | Path) -> CaseRecord:
    """Return what the record of a case says.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    FileError, FormatVersionError
        When it is no such record, damaged, or of another version.
    """
    record = read_record(
        path, "the record of a case", kind=FORMAT, version=VERSION, largest=LARGEST_FILE
    )
    try:
        found: CaseRecord = checked_record(CaseRecord, record)
    except MedGSError as error:
        raise FileError(f"{path}: the record is damaged ({error}).") from None
    return found


def _write(path: Path, record: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(plain_json(record), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
