"""A trained codec: fields to a few bytes and back, and latents as features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.compression.learned.card import CodecCard
from napari_medgs.compression.learned.entropy import bits_of, read_latents, write_latents
from napari_medgs.compression.learned.model import CodecModel
from napari_medgs.compression.learned.table import (
    CENTER_BITS,
    attribute,
    centers_from,
    whole_centers,
)
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.errors import ParameterError
from napari_medgs.rendering.parameters import from_parameters, to_parameters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Codec:
    """A learned codec for fields like those of its training.

    Attributes
    ----------
    card : CodecCard
    model : CodecModel

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.compression.learned import CodecParams, train_codec
    >>> disks = np.hypot(*np.mgrid[-8:8, -8:8]) < np.arange(3, 7)[:, None, None]
    >>> volumes = [mg.Volume.from_array(d[None].astype(np.float32)) for d in disks]
    >>> params = mg.FitParams(gaussians=16, iterations=5)
    >>> fields = [mg.fit(v, params).field for v in volumes]
    >>> codec = train_codec(fields, CodecParams(steps=3, block=16))
    >>> data = codec.compress(fields[0])
    >>> len(codec.decompress(data, len(fields[0]), fields[0].info, fields[0].background))
    16
    """

    card: CodecCard
    model: CodecModel

    def check(self, field: GaussianField) -> None:
        """Raise an error that says why a field is not of the codec's kind.

        Parameters
        ----------
        field : GaussianField

        Raises
        ------
        ParameterError
        """
        card = self.card
        if field.info.channels != card.channels:
            raise ParameterError(
                f"The field has {field.info.channels} channels and classes, the codec codes "
                f"{card.channels}."
            )
        if not len(field):
            raise ParameterError("The field has no Gaussians: there is nothing to code.")
        if card.slots and len(field) != card.slots:
            raise ParameterError(
                f"The field has {len(field):,} Gaussians, those of the codec {card.slots} in a "
                "fixed order; fit the image from the codec's start."
            )

    def start(self) -> GaussianField | None:
        """Return the field from which the fields of the training were fitted, if they were."""
        if not self.card.info:
            return None
        info = FieldInfo.from_dict(self.card.info)
        table = self.model.start.numpy()
        return from_parameters(table, self.model.background.numpy(), info)

    def network_input(self, field: GaussianField) -> tuple[Tensor, Floats | None]:
        """Return what the network reads of a field: normalized blocks, and their middles.

        Parameters
        ----------
        field : GaussianField

        Returns
        -------
        (B, block, P) tensor, and (B, 3) ndarray of float32 or None

        Raises
        ------
        ParameterError
            When the field is not of the codec's kind.
        """
        blocks, whole = self._blocks(field)
        centers = None if whole is None else centers_from(whole, field.info.stack_shape)
        return self.model.normalize(blocks, centers), centers

    def _blocks(self, field: GaussianField) -> tuple[Floats, NDArray[np.int64] | None]:
        """Return a field's blocks and the whole middles of them, where these are coded."""
        self.check(field)
        table = to_parameters(field)
        if not self.card.slots:
            table = table[field.morton_order()]
        blocks = self.model.blocks(table)
        if not self.card.local:
            return blocks, None
        return blocks, whole_centers(blocks, field.info.stack_shape)

    def encode(self, field: GaussianField) -> NDArray[np.int64]:
        """Return the whole latents of a field (B, L), one row a block.

        Parameters
        ----------
        field : GaussianField

        Raises
        ------
        ParameterError
            When the field is not of the codec's kind.
        """
        return self._encode(field)[0]

    def _encode(self, field: GaussianField) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        blocks, whole = self._blocks(field)
        centers = None if whole is None else centers_from(whole, field.info.stack_shape)
        return self.model.encode(self.model.normalize(blocks, centers)), whole

    def features(self, fields: Sequence[GaussianField]) -> Floats:
        """Return one row of numbers a field: its latents, for retrieval or classification.

        Parameters
        ----------
        fields : sequence of GaussianField

        Returns
        -------
        (F, B * L) or (F, 2 L) ndarray of float32
            Latents in their units. Where fields have several blocks, whose number varies, mean
            and standard deviation of them.

        Raises
        ------
        ParameterError
            When a field is not of the codec's kind.
        """
        found = [self.encode(field) * self.model.scale.numpy() for field in fields]
        if all(len(one) == 1 for one in found):
            return np.concatenate(found).astype(np.float32)
        rows = [np.concatenate([one.mean(axis=0), one.std(axis=0)]) for one in found]
        return np.stack(rows).astype(np.float32)

    def compress(self, field: GaussianField) -> bytes:
        """Return a field's latents as bytes.

        Parameters
        ----------
        field : GaussianField

        Raises
        ------
        ParameterError
            When the field is not of the codec's kind.
        """
        latents, whole = self._encode(field)
        bits = 0 if whole is None else CENTER_BITS
        return write_latents(latents, self.model.frequencies.numpy(), whole, bits)

    def decompress(
        self, data: bytes, count: int, info: FieldInfo, background: Floats
    ) -> GaussianField:
        """Return the field of bytes, in Morton order or that of the codec's start.

        Parameters
        ----------
        data : bytes
            Of :meth:`compress`.
        count : int
            Number of Gaussians.
        info : FieldInfo
        background : (C,) ndarray

        Raises
        ------
        ParameterError
            When the bytes are damaged.
        """
        rows = -(-count // self.card.block)
        bits = CENTER_BITS if self.card.local else 0
        latents, whole = read_latents(data, rows, self.model.frequencies.numpy(), bits)
        centers = centers_from(whole, info.stack_shape) if bits else None
        table = self.model.tables(self.model.decode(latents), count, centers).numpy()
        return from_parameters(table, background, info)

    def restored(self, field: GaussianField) -> GaussianField:
        """Return a field as a reader of its bytes gets it.

        Parameters
        ----------
        field : GaussianField
        """
        data = self.compress(field)
        return self.decompress(data, len(field), field.info, field.background)

    def explained(self, fields: Sequence[GaussianField]) -> dict[str, float]:
        """Return the share of the variance of every attribute that the codec keeps.

        Parameters
        ----------
        fields : sequence of GaussianField

        Returns
        -------
        dict of str to float
            1 is all, 0 as much as a constant, below 0 less than that.
        """
        before, after = [], []
        for field in fields:
            given, _ = self.network_input(field)
            got = self.model.decode(self.model.encode(given))
            scale = self.model.deviation.numpy()[:1]
            before.append((given.numpy() * scale).reshape(-1, given.shape[2])[: len(field)])
            after.append((got.numpy() * scale).reshape(-1, given.shape[2])[: len(field)])
        x, y = np.concatenate(before), np.concatenate(after)
        left = ((x - y) ** 2).mean(axis=0) / np.maximum(x.var(axis=0), 1e-12)
        names = [attribute(k, self.card.published) for k in self.card.columns]
        return {name: float(1 - share) for name, share in zip(names, left, strict=True)}

    def bits(self, fields: Sequence[GaussianField]) -> float:
        """Return the mean bits of a field under the learned distribution of latents.

        Parameters
        ----------
        fields : sequence of GaussianField
        """
        tables = self.model.frequencies.numpy()
        side = 3 * CENTER_BITS if self.card.local else 0
        total: list[Any] = []
        for field in fields:
            latents = self.encode(field)
            total.append(bits_of(latents, tables).sum() + side * len(latents))
        return float(np.mean(total))
