"""What is made of initial masks: the same array again as long as the mask is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.prompts import Prompts


class SameMasks:
    """Remembers what was made of initial masks.

    A model prepares an initial mask once and knows it by its identity. One that solves on
    another grid must give it the same array for the same mask.
    """

    def __init__(self) -> None:
        # The masks are kept as well: a new one never has the identity of one that is gone.
        self._made: dict[str, tuple[NDArray[Any], Any]] = {}

    def of(self, name: str, mask: NDArray[Any] | None, make: Callable[[NDArray[Any]], Any]) -> Any:
        """Return what is made of a mask, of before where it is the same mask.

        Parameters
        ----------
        name : str
            What is made; one of each name is remembered.
        mask : ndarray, optional
        make : callable
            (mask) -> what is made of it.

        Returns
        -------
        object
            None without a mask; what was made before is forgotten then.
        """
        if mask is None:
            self._made.pop(name, None)
            return None
        if name not in self._made or self._made[name][0] is not mask:
            self._made[name] = mask, make(mask)
        return self._made[name][1]

    def in_place(self, prompts: Prompts, inner: Prompts) -> Prompts:
        """Return prompts of another grid with the masks of before where they are the same.

        Parameters
        ----------
        prompts : Prompts
            On the image's grid.
        inner : Prompts
            On the other grid, with masks that were made anew.

        Returns
        -------
        Prompts
        """
        return replace(
            inner,
            initial=self.of("initial", prompts.initial, lambda _: inner.initial),
            prior=self.of("prior", prompts.prior, lambda _: inner.prior),
        )
