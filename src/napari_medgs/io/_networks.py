"""Files of trained networks: weights as safetensors with a JSON card, which never run code."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_medgs._util.records import parse_json
from napari_medgs.errors import FileError, FormatVersionError, GeometryError, ParameterError
from napari_medgs.io._safetensors import TensorFormat
from napari_medgs.io.json_files import plain_json

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Card = TypeVar("Card")
Network = TypeVar("Network", bound="Module")


@dataclass(frozen=True)
class NetworkFormat:
    """One kind of network file of this package.

    Attributes
    ----------
    tensors : TensorFormat
        Header of the file.
    max_bytes : int
        A larger file is refused.
    suffix : str
        What its name ends in.
    """

    tensors: TensorFormat
    max_bytes: int
    suffix: str = ".safetensors"

    @property
    def kind(self) -> str:
        """What the file holds, for messages: "segmenter"."""
        return self.tensors.kind

    def write(self, path: str | Path, card: dict[str, Any], weights: Mapping[str, Tensor]) -> Path:
        """Write a file that is complete or absent: under a temporary name, then renamed.

        Parameters
        ----------
        path : str or Path
        card : dict
            What describes the network, as JSON can hold it.
        weights : mapping of str to torch.Tensor

        Returns
        -------
        Path

        Raises
        ------
        FileError
            When the name has another suffix or the folder cannot be written.
        """
        from safetensors.torch import save

        path = Path(path)
        if not path.name.lower().endswith(self.suffix):
            raise FileError(f"{path}: the file of a {self.kind} must end in {self.suffix}.")
        text = json.dumps(plain_json(card), ensure_ascii=False)
        plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        self.tensors.write(path, save(plain, metadata=self.tensors.header(card=text)))
        return path

    def read_card(self, path: str | Path, parse: Callable[[Any], Card]) -> Card:
        """Read only what describes the network; does not need torch.

        Parameters
        ----------
        path : str or Path
        parse : callable
            Makes the card of parsed JSON; its errors are those of a damaged file.

        Raises
        ------
        FileError, FormatVersionError
            When the file is missing, damaged, of another kind, or of a newer version.
        """
        header = self.tensors.read_header(path)
        with self._damage(path, f"damaged, or no {self.kind}"):
            return parse(parse_json(header["card"]))

    def read_weights(self, path: str | Path) -> dict[str, Tensor]:
        """Read the weights of all networks in a file.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        FileError
            When the file is too large, truncated or damaged.
        """
        from safetensors.torch import load_file

        if Path(path).stat().st_size > self.max_bytes:
            raise FileError(f"{path}: too large for a {self.kind} of this package.")
        with self._damage(path):
            return load_file(path)

    def build(
        self, path: str | Path, make: Callable[[], Network], weights: Mapping[str, Tensor]
    ) -> Network:
        """Build a network and give it the weights of a file.

        Parameters
        ----------
        path : str or Path
            The file, for messages.
        make : callable
            Builds the network that the file's card describes.
        weights : mapping of str to torch.Tensor

        Returns
        -------
        torch.nn.Module
            On the CPU.

        Raises
        ------
        FileError
            When the weights do not fit that network or are not finite.
        """
        import torch

        with self._damage(path):
            with torch.device("meta"):  # sizes only: a damaged card may ask for any memory
                expected = make().state_dict()
            if _shapes(weights) != _shapes(expected):
                raise FileError(
                    f"{path}: its weights do not fit the network that its card describes: it is "
                    "damaged or was written by another version; train it again."
                )
            if not all(math.isfinite(float(v.double().sum())) for v in weights.values()):
                raise FileError(f"{path}: contains weights that are not finite.")
            with torch.random.fork_rng(devices=[]):  # reading a file changes nobody's chance
                network = make()
            network.load_state_dict(weights)
        return network

    @contextmanager
    def _damage(self, path: str | Path, what: str = "") -> Iterator[None]:
        """Turn what a damaged file raises into one clear error."""
        from safetensors import SafetensorError

        try:
            yield
        except (FormatVersionError, FileError) as error:
            text = str(error)
            if text.startswith(str(path)):
                raise
            raise FileError(f"{path}: {text[:1].lower()}{text[1:]}") from error
        except (
            SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError,
            ParameterError, GeometryError,
        ) as error:  # fmt: skip
            what = what or f"damaged or truncated {self.kind}"
            raise FileError(f"{path}: {what} ({error}).") from error


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}
