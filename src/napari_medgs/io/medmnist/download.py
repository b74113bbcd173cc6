"""MedMNIST files downloaded by name, with checksums."""

from __future__ import annotations

from pathlib import Path

from napari_medgs.errors import FileError, ParameterError
from napari_medgs.io.medmnist.table import SETS, file_name

# Errors of requests and urllib3 without a connection, by name: neither is imported here.
_OFFLINE = ("ConnectionError", "ConnectTimeout", "ProxyError", "gaierror")


def fetch(name: str, *, size: int = 28, cache: str | Path | None = None) -> Path:
    """Download a MedMNIST file once and return its path; its MD5 is checked every time.

    Parameters
    ----------
    name : str
        ``breastmnist``, ``organmnist3d``, ...
    size : int
        28, 64, 128 or 224 pixels; 28 or 64 for 3D sets.
    cache : str or Path, optional
        Folder for downloads; by default the user's cache folder.

    Raises
    ------
    ParameterError
        When the set or size is unknown: only a local file can then be read.
    FileError
        When the download fails or its checksum differs.
    """
    import pooch

    name = name.lower()
    info = SETS.get(name)
    if info is None:
        raise ParameterError(
            f"'{name}' is no MedMNIST set; there are {', '.join(SETS)}. Other sets are read from "
            "a local .npz file."
        )
    if size not in info.md5:
        raise ParameterError(
            f"No checksum of {name} at {size} pixels is known, so it is not downloaded; there are "
            f"{', '.join(map(str, info.md5))}. A local .npz file of any size can be read."
        )
    folder = (
        Path(cache) if cache is not None else Path(pooch.os_cache("napari-medgs")) / "medmnist"
    )
    file = file_name(name, size)
    try:
        found = pooch.retrieve(
            info.url(name, size), known_hash=f"md5:{info.md5[size]}", fname=file, path=folder
        )
    except (OSError, ValueError) as error:
        # requests' errors are OSErrors; a wrong checksum is a ValueError.
        reason = f"({error})"
        if type(error).__name__ in _OFFLINE:
            reason = "as there is no network connection to zenodo.org"
        raise FileError(
            f"{file} could not be downloaded {reason}. Get it from zenodo.org/records/10519652 "
            f"on a machine that has one and give the file's path in place of '{name}'."
        ) from error
    return Path(found)
