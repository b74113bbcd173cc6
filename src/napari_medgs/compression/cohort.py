"""A folder of fields as one file, and back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_medgs._util.naming import naming
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.compression.api import compress
from napari_medgs.compression.params import CompressParams
from napari_medgs.errors import Cancelled, FileError
from napari_medgs.io.codec.archive import SUFFIX, FieldArchive
from napari_medgs.io.codec.archive_writer import write_archive
from napari_medgs.io.codec.files import write_compressed
from napari_medgs.io.fields import (
    COMPRESSED,
    SUFFIXES,
    field_stem,
    is_compressed_field,
    load_field,
    save_field,
)
from napari_medgs.io.folders import make_folder

NOT_PACKED = "The packing was canceled; nothing was written."
NOT_UNPACKED = "The unpacking was canceled; the files so far are kept."


def fields_in(folder: str | Path) -> dict[str, Path]:
    """Return the field files of a folder by name, hidden ones and subfolders left out.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    FileError
        When there is no such folder, it has no fields, or two of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: is no folder.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if not path.name.lower().endswith(SUFFIXES):
            continue
        name = field_stem(path)
        if name in found:
            raise FileError(
                f"{path}: has the name of {found[name].name}; keep one of the two in the folder."
            )
        found[name] = path
    if not found:
        raise FileError(f"{folder}: holds no fields ({' or '.join(SUFFIXES)}).")
    return found


def one_by_one(
    paths: dict[str, Path], canceled: str, progress: ProgressCallback, should_stop: StopCallback
) -> Iterator[tuple[str, Path]]:
    """Give fields by name in turn, and say how many are done.

    Parameters
    ----------
    paths : dict
        By name.
    canceled : str
        What is said when it is stopped.
    progress, should_stop : callable

    Raises
    ------
    Cancelled
    """
    started = time.perf_counter()
    for done, item in enumerate(paths.items()):
        if should_stop():
            raise Cancelled(canceled)
        progress(ProgressEvent("fields", done, len(paths), time.perf_counter() - started))
        yield item
    progress(ProgressEvent("fields", len(paths), len(paths), time.perf_counter() - started))


def pack(
    folder: str | Path,
    output: str | Path,
    params: CompressParams | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> Path:
    """Write all fields of a folder into one file.

    Compressed ones come back bit for bit; exact ones are compressed first.

    Parameters
    ----------
    folder : str or Path
    output : str or Path
        Ends in ``.medgsz``.
    params : CompressParams, optional
        For exact fields.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When a field cannot be read or the file not be written.
    ParameterError
        When a name is not one on every system.
    Cancelled
        When canceled; nothing is written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.compression import pack, unpack
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=5)).field
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a", "b"):
    ...         saved = mg.save_field(Path(folder) / f"{name}.medgs", field)
    ...     cohort = pack(folder, Path(folder) / "all.medgsz")
    ...     [path.name for path in unpack(cohort, Path(folder) / "again")]
    ['a.medgs', 'b.medgs']
    """
    params = params or CompressParams()
    if not Path(output).name.lower().endswith(SUFFIX):
        raise FileError(f"{output}: the file name of a cohort must end in {SUFFIX}.")
    contents: dict[str, bytes] = {}
    for name, path in one_by_one(fields_in(folder), NOT_PACKED, progress, should_stop):
        if is_compressed_field(path):
            contents[name] = path.read_bytes()
        else:
            with naming(field=path):
                contents[name] = compress(load_field(path), params, should_stop=should_stop).data
    with naming(field=folder):
        return write_archive(output, contents)


def unpack(
    archive: str | Path,
    folder: str | Path,
    names: Iterable[str] | None = None,
    *,
    exact: bool = False,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> list[Path]:
    """Write the fields of a file into a folder.

    Parameters
    ----------
    archive : str or Path
    folder : str or Path
        Made if it is not there. No file is overwritten.
    names : iterable of str, optional
        Of the fields; all by default.
    exact : bool
        As ``.medgs.safetensors``.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    list of Path

    Raises
    ------
    FileError
        When the file is damaged, holds no such field, or a file is there already.
    Cancelled
        When canceled; the files so far are kept.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.compression import pack, unpack
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> field = mg.fit(volume, mg.FitParams(gaussians=40, iterations=5)).field
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = [mg.save_field(Path(folder) / f"{name}.medgs", field) for name in "ab"]
    ...     cohort = pack(folder, Path(folder) / "all.medgsz")
    ...     [path.name for path in unpack(cohort, Path(folder) / "again", ["b"])]
    ['b.medgs']
    """
    opened = FieldArchive(archive)
    paths = targets(opened, folder, names, SUFFIXES[0] if exact else COMPRESSED)
    for name, path in one_by_one(paths, NOT_UNPACKED, progress, should_stop):
        if exact:
            save_field(path, opened.load(name))
        else:
            write_compressed(path, opened.extract(name))
    return list(paths.values())


def targets(
    opened: FieldArchive, folder: str | Path, names: Iterable[str] | None, suffix: str
) -> dict[str, Path]:
    """Return where fields of an archive go; the folder is made.

    Parameters
    ----------
    opened : FieldArchive
    folder : str or Path
    names : iterable of str, optional
        All by default.
    suffix : str
        Of the files.

    Raises
    ------
    FileError
        When there is no such field, a file is there already, or the folder cannot be made.
    """
    wanted = list(opened.names if names is None else dict.fromkeys(names))
    unknown = [name for name in wanted if name not in opened.names]
    if unknown:
        raise FileError(f"{opened.path}: holds no field {unknown[0]!r}; info lists its fields.")
    place = Path(folder)
    paths = {name: place / f"{name}{suffix}" for name in wanted}
    for path in paths.values():
        if path.exists():
            raise FileError(f"{path}: exists already; choose another folder.")
    make_folder(place)
    return paths
