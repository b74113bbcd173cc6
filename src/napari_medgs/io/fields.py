"""Field files, exact (safetensors) and compressed: opening one runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import parse_json
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import FileError, MedGSError
from napari_medgs.io._safetensors import TensorFormat

FORMAT = TensorFormat("napari-medgs field", 1, "field", 16 * 2**20)
SUFFIX = ".medgs.safetensors"
COMPRESSED = ".medgs"
SUFFIXES = (SUFFIX, COMPRESSED)
"""Endings of field files: exact and compressed."""


def info_to_json(info: FieldInfo) -> str:
    """Return the JSON text of everything in a field that is not a tensor."""
    record = asdict(info)
    record["grid"] = info.grid.to_dict()
    return json.dumps(record, default=_plain)


def _plain(value: Any) -> Any:
    """Turn numpy numbers and arrays into JSON types."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"Cannot store {type(value).__name__} in a field file.")


def info_from_json(text: str) -> FieldInfo:
    """Make a :class:`FieldInfo` of :func:`info_to_json`'s text; unknown keys are ignored."""
    return FieldInfo.from_dict(parse_json(text))


def save_field(
    path: str | Path,
    field: GaussianField,
    *,
    extra: Mapping[str, NDArray[Any]] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a field to a ``.medgs.safetensors`` file, or a compressed ``.medgs`` file.

    The write is atomic: a temporary file is renamed when complete. Compressed files written here
    have fine steps: about a fifth of the size, with differences that are hardly measurable.
    :func:`napari_medgs.compress` makes them half as large again.

    Parameters
    ----------
    path : str or Path
        Ends in ``.medgs.safetensors``, or in ``.medgs``.
    field : GaussianField
    extra : mapping of str to ndarray, optional
        More tensors, whose names hold a dot; :func:`load_field` passes over them, see
        :func:`load_extra`.
    notes : mapping of str to str, optional
        More entries of the header.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written; when more tensors are to
        go to a compressed file, which holds none.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> image = np.random.default_rng(0).random((4, 8, 8), np.float32)
    >>> params = mg.FitParams(gaussians=20, iterations=2, backend="cpu")
    >>> field = mg.fit(mg.Volume.from_array(image), params).field
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mg.save_field(Path(folder) / "scan.medgs.safetensors", field)
    ...     same = mg.load_field(path)
    >>> bool((same.centers == field.centers).all())
    True
    """
    from safetensors.numpy import save

    path = Path(path)
    if is_compressed_field(path):
        from napari_medgs.io.codec.encoding import encode
        from napari_medgs.io.codec.files import write_compressed

        if extra:
            raise FileError(
                f"{path}: a compressed field holds no tree of parts; choose a name that ends in "
                f"{SUFFIX}."
            )
        return write_compressed(path, encode(field).data)
    if not path.name.lower().endswith(".safetensors"):
        raise FileError(f"{path}: a field's file name must end in {' or '.join(SUFFIXES)}.")
    field.validate()
    tensors = {name: getattr(field, name) for name in field.tensor_names()}
    tensors.update({name: np.ascontiguousarray(array) for name, array in (extra or {}).items()})
    header = FORMAT.header(info=info_to_json(field.info), **(notes or {}))
    FORMAT.write(path, save(tensors, metadata=header))
    return path


def is_field_file(path: str | Path) -> bool:
    """Tell by its suffix whether a path is a field file."""
    return Path(path).name.lower().endswith(".safetensors") or is_compressed_field(path)


def is_compressed_field(path: str | Path) -> bool:
    """Tell by its suffix whether a path is a compressed field file."""
    return Path(path).name.lower().endswith(COMPRESSED)


def field_stem(path: str | Path) -> str:
    """Return a field file's name without the ending of its format.

    Examples
    --------
    >>> from napari_medgs.io.fields import field_stem
    >>> field_stem("scan.v2.medgs.safetensors"), field_stem("a/scan.medgs")
    ('scan.v2', 'scan')
    """
    name = Path(path).name
    for suffix in (*SUFFIXES, ".safetensors"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(path).stem


def load_field(
    path: str | Path,
    *,
    box: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None,
    preview: bool = False,
) -> GaussianField:
    """Read a field file, exact or compressed.

    Parameters
    ----------
    path : str or Path
    box : ((z, y, x), (z, y, x)), optional
        First and last voxel of the field's grid, the last one excluded: only Gaussians that reach
        into it are returned. Of a compressed file other parts are not even read.
    preview : bool
        The field of few Gaussians that a compressed file may begin with.

    Returns
    -------
    GaussianField

    Raises
    ------
    FileError
        When the file is missing, damaged or no field.
    FormatVersionError
        When a newer version of the package wrote it.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> mg.load_field("missing.medgs.safetensors")
    Traceback (most recent call last):
    napari_medgs.errors.FileError: missing.medgs.safetensors: no such file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if is_compressed_field(path):
        from napari_medgs.io.codec.files import load_compressed

        return load_compressed(path, box=box, preview=preview)
    if preview:
        raise FileError(f"{path}: only compressed fields ({COMPRESSED}) have a preview.")
    header = FORMAT.read_header(path)
    try:
        with safe_open(path, framework="numpy") as opened:
            names = GaussianField.tensor_names()
            missing = set(names) - set(opened.keys())
            if missing:
                raise FileError(f"{path}: the field lacks {', '.join(sorted(missing))}.")
            tensors = {name: opened.get_tensor(name) for name in names}
        field = GaussianField(**tensors, info=info_from_json(header["info"]))
    except MedGSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: damaged field file. {error}") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged or truncated field file ({error}).") from error
    if box is None:
        return field
    from napari_medgs.io.codec.region import field_within

    return field_within(field, box)


def load_info(path: str | Path) -> FieldInfo:
    """Read what a field file says of its field, without its Gaussians.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    FieldInfo

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_field`.
    """
    path = Path(path)
    if is_compressed_field(path):
        from napari_medgs.io.codec.files import open_compressed

        with open_compressed(path) as (_, compressed):
            return compressed.info
    header = FORMAT.read_header(path)
    try:
        return info_from_json(header["info"])
    except (MedGSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged field file. {error}") from error


def load_extra(path: str | Path, prefix: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read the additional tensors of a field file.

    Parameters
    ----------
    path : str or Path
    prefix : str
        Of their names, without the dot.

    Returns
    -------
    tensors : dict of str to ndarray
        By name, without the prefix; empty where there are none.
    header : dict of str to str
        All entries of the header.

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_field`.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if is_compressed_field(path):
        from napari_medgs.io.codec.files import open_compressed

        with open_compressed(path):
            return {}, {}
    header = FORMAT.read_header(path)
    start = f"{prefix}."
    try:
        with safe_open(path, framework="numpy") as opened:
            names = [name for name in opened.keys() if name.startswith(start)]  # noqa: SIM118
            tensors = {name.removeprefix(start): opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged or truncated field file ({error}).") from error
    return tensors, header
