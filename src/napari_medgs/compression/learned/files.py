"""Files of learned codecs and of fields that they coded: safetensors, which never run code."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medgs._optional import require
from napari_medgs._typing import Floats
from napari_medgs._util.records import checked, parse_json
from napari_medgs.compression.learned.card import CodecCard
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import FileError, GeometryError, ParameterError
from napari_medgs.io._limits import check_memory
from napari_medgs.io._networks import NetworkFormat
from napari_medgs.io._safetensors import TensorFormat
from napari_medgs.io.fields import info_from_json, info_to_json

if TYPE_CHECKING:
    from napari_medgs.compression.learned.codec import Codec

CODED_SUFFIX = ".latents.safetensors"
FORMAT = NetworkFormat(TensorFormat("napari-medgs codec", 1, "codec", 2**22), 2**29)
CODED = TensorFormat("napari-medgs coded field", 1, "coded field", 2**22)
MOST_GAUSSIANS = 20_000_000


def save_codec(path: str | Path, codec: Codec) -> Path:
    """Write a codec to a ``.safetensors`` file, atomically.

    Parameters
    ----------
    path : str or Path
    codec : Codec

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.
    """
    return FORMAT.write(path, codec.card.to_dict(), codec.model.state_dict())


def load_codec_card(path: str | Path) -> CodecCard:
    """Read only the card of a codec's file; does not need torch.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    FileError, FormatVersionError
        As :func:`load_codec`.
    """
    return FORMAT.read_card(path, CodecCard.from_dict)


def load_codec(path: str | Path) -> Codec:
    """Read a codec that training wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Codec

    Raises
    ------
    FileError
        When the file is missing, damaged or no codec.
    FormatVersionError
        When a newer version of the package wrote it.
    MissingPackageError
        When torch is not installed.
    """
    card = load_codec_card(path)
    require("torch", feature="A learned codec")
    from napari_medgs.compression.learned.codec import Codec
    from napari_medgs.compression.learned.model import CodecModel

    weights = FORMAT.read_weights(path)
    model = FORMAT.build(path, lambda: CodecModel(card), weights)
    if int(weights["frequencies"].min()) < 1 or int(weights["frequencies"].max()) > 2**20:
        raise FileError(f"{path}: damaged codec: its tables hold impossible counts.")
    return Codec(card, model.eval())


def fingerprint(codec: Codec) -> str:
    """Return a short text that only codecs with the same weights share.

    Parameters
    ----------
    codec : Codec
    """
    found = hashlib.sha256()
    for name, value in sorted(codec.model.state_dict().items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.numpy()).tobytes())
    return found.hexdigest()[:32]


def save_coded(path: str | Path, field: GaussianField, codec: Codec) -> int:
    """Write what a codec makes of a field, atomically.

    Parameters
    ----------
    path : str or Path
        Ends in ``.latents.safetensors``.
    field : GaussianField
    codec : Codec

    Returns
    -------
    int
        Bytes of the latents; the rest of the file describes grid and scale.

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.
    ParameterError
        When the field is not of the codec's kind.
    """
    from safetensors.numpy import save

    path = Path(path)
    if not path.name.lower().endswith(CODED_SUFFIX):
        raise FileError(f"{path}: a field coded by a learned codec must end in {CODED_SUFFIX}.")
    data = codec.compress(field)
    header = CODED.header(
        info=info_to_json(replace(field.info, params={}, metrics={})),
        codec=fingerprint(codec),
        gaussians=str(len(field)),
        crc32=str(_checksum(data, field.background)),
    )
    tensors = {"latents": np.frombuffer(data, np.uint8), "background": field.background}
    CODED.write(path, save(tensors, metadata=header))
    return len(data)


@dataclass(frozen=True)
class CodedHeader:
    """What a coded field says of itself.

    Attributes
    ----------
    info : FieldInfo
    gaussians : int
    codec : str
        The :func:`fingerprint` of the codec that wrote it.
    checksum : str
    """

    info: FieldInfo
    gaussians: int
    codec: str
    checksum: str


def load_coded_header(path: str | Path) -> CodedHeader:
    """Read what a coded field says of itself, without its codec.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    FileError, FormatVersionError
        When the file is missing or damaged.
    """
    header = CODED.read_header(path)
    with _damaged(path):
        count = checked(int, parse_json(header["gaussians"]), "gaussians")
        if not 0 < count <= MOST_GAUSSIANS:
            raise ParameterError(f"{count} Gaussians")
        info = info_from_json(header["info"])
        return CodedHeader(info, count, header.get("codec", ""), header["crc32"])


def load_coded(path: str | Path, codec: Codec) -> GaussianField:
    """Read a field that a codec has coded.

    Parameters
    ----------
    path : str or Path
    codec : Codec
        The one that coded it.

    Returns
    -------
    GaussianField

    Raises
    ------
    FileError, FormatVersionError, MemoryEstimateError
        When the file is missing or damaged, or another codec wrote it.
    """
    from safetensors.numpy import load_file

    path = Path(path)
    header = load_coded_header(path)
    if header.codec != fingerprint(codec):
        raise FileError(f"{path}: another codec wrote it; give that one.")
    check_memory(path, header.gaussians * 8 * (codec.card.latents + 64))
    with _damaged(path):
        tensors = load_file(path)
        data = tensors["latents"].tobytes()
        background = tensors["background"]
        if str(_checksum(data, background)) != header.checksum:
            raise ParameterError("its checksum does not fit")
        return codec.decompress(data, header.gaussians, header.info, background)


@contextmanager
def _damaged(path: str | Path) -> Iterator[None]:
    """Turn what a damaged file raises into one clear error."""
    from safetensors import SafetensorError

    try:
        yield
    except (
        SafetensorError, OSError, ValueError, KeyError, TypeError, ParameterError, GeometryError,
    ) as error:  # fmt: skip
        raise FileError(f"{path}: damaged, or no coded field ({error}).") from error


def _checksum(data: bytes, background: Floats) -> int:
    return zlib.crc32(np.ascontiguousarray(background, np.float32).tobytes(), zlib.crc32(data))
