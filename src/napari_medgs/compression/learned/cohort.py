"""A folder of fields as one file of latents, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_medgs._util.naming import naming
from napari_medgs._util.progress import (
    ProgressCallback,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.compression.cohort import (
    NOT_PACKED,
    NOT_UNPACKED,
    fields_in,
    one_by_one,
    targets,
)
from napari_medgs.compression.learned.codec import Codec
from napari_medgs.compression.learned.files import fingerprint
from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io._limits import check_memory
from napari_medgs.io.codec.archive import SUFFIX, CodedField, FieldArchive
from napari_medgs.io.codec.archive_writer import write_coded_archive
from napari_medgs.io.fields import SUFFIX as FIELD
from napari_medgs.io.fields import load_field, save_field


def pack_coded(
    folder: str | Path,
    output: str | Path,
    codec: Codec,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> Path:
    """Code all fields of a folder by a learned codec into one file.

    The tables of latents are the codec's, so that the file holds latents and the directory only.

    Parameters
    ----------
    folder : str or Path
    output : str or Path
        Ends in ``.medgsz``.
    codec : Codec
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
        When a field is not of the codec's kind, or a name is not one on every system.
    Cancelled
        When canceled; nothing is written.
    """
    if not Path(output).name.lower().endswith(SUFFIX):
        raise FileError(f"{output}: the file name of a cohort must end in {SUFFIX}.")
    found, mark = fields_in(folder), fingerprint(codec)
    coded: dict[str, CodedField] = {}
    for name, path in one_by_one(found, NOT_PACKED, progress, should_stop):
        field = load_field(path)
        with naming(field=path):
            data = codec.compress(field)
        info = replace(field.info, params={}, metrics={})
        background = tuple(map(float, field.background))
        coded[name] = CodedField(info, len(field), background, mark, data)
    with naming(field=folder):
        return write_coded_archive(output, coded)


def unpack_coded(
    archive: str | Path,
    folder: str | Path,
    codec: Codec,
    names: Iterable[str] | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> list[Path]:
    """Write fields that a learned codec has coded into a folder, as ``.medgs.safetensors``.

    Parameters
    ----------
    archive : str or Path
        Of :func:`pack_coded`.
    folder : str or Path
        Made if it is not there. No file is overwritten.
    codec : Codec
        The one that coded them.
    names : iterable of str, optional
        Of the fields; all by default.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    list of Path

    Raises
    ------
    FileError
        When the file is damaged, another codec wrote it, it holds no such field, or a file is
        there already.
    Cancelled
        When canceled; the files so far are kept.
    """
    opened, mark = FieldArchive(archive), fingerprint(codec)
    if opened.codec != mark:
        why = "no learned codec wrote it" if opened.codec is None else "another codec wrote it"
        raise FileError(f"{archive}: {why}.")
    paths = targets(opened, folder, names, FIELD)
    for name, path in one_by_one(paths, NOT_UNPACKED, progress, should_stop):
        one = opened.coded(name)
        if one.codec != mark:
            raise FileError(f"{archive}: another codec has coded {name!r}.")
        check_memory(archive, one.gaussians * 8 * (codec.card.latents + 64))
        background = np.asarray(one.background, np.float32)
        try:
            field = codec.decompress(one.data, one.gaussians, one.info, background)
        except ParameterError as error:
            raise FileError(f"{archive}: {name!r} is damaged ({error}).") from error
        save_field(path, field)
    return list(paths.values())
