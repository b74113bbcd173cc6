"""What the coder of a chunk knows of the bits, and how it begins."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from napari_medgs.io.codec.cells import COUNT_NODES
from napari_medgs.io.codec.coder import INPUTS, NODES, initial_chances
from napari_medgs.io.codec.model import Model

CONTEXTS = 32
LOGIT_CONTEXTS = 256
_TRUST, _TRUST_SHARED = 3, 60
"""How often a probability counts as seen: a first guess, and one that another field has taught."""
_WEIGHT = 18000


@dataclass
class Tables:
    """What the coder knows of the bits: probabilities, how often seen, and how they are mixed.

    Attributes
    ----------
    chances, seen : (A x INPUTS x CONTEXTS x NODES,) ndarrays
    weights : (A, NODES, INPUTS) ndarray of int64
    class_chances, class_seen, class_weights : ndarrays
        Of class scores; empty without classes.
    count_chances, count_seen : (COUNT_NODES,) ndarrays
        Of the cells.
    """

    chances: NDArray[np.int64]
    seen: NDArray[np.uint8]
    weights: NDArray[np.int64]
    class_chances: NDArray[np.int64]
    class_seen: NDArray[np.uint8]
    class_weights: NDArray[np.int64]
    count_chances: NDArray[np.int64]
    count_seen: NDArray[np.uint8]

    @classmethod
    def first(cls, model: Model, classes: int) -> Tables:
        """Return tables that have seen nothing but the model's first guess."""
        kept = len(model.coefficients)
        guess = np.empty((kept + 1, NODES), np.int64)
        for c, (zero, decay) in enumerate(model.starts):
            initial_chances(zero, decay, guess[c])
        chances = np.repeat(guess[:kept, None], INPUTS * CONTEXTS, axis=1).reshape(-1)
        contexts = INPUTS * LOGIT_CONTEXTS if classes else 0
        class_chances = np.repeat(guess[kept, None], contexts, axis=0).reshape(-1)
        return cls(
            chances,
            np.full(len(chances), _TRUST, np.uint8),
            np.full((kept, NODES, INPUTS), _WEIGHT, np.int64),
            class_chances,
            np.full(len(class_chances), _TRUST, np.uint8),
            np.full((NODES, INPUTS), _WEIGHT, np.int64),
            np.full(COUNT_NODES, 32768, np.int64),
            np.zeros(COUNT_NODES, np.uint8),
        )

    def copy(self) -> Tables:
        """Return tables that learn on their own."""
        return Tables(*(getattr(self, entry.name).copy() for entry in fields(self)))

    def relax(self) -> Tables:
        """Return the tables ready to follow another field: with little trust in what they saw."""
        made = self.copy()
        for seen in (made.seen, made.class_seen, made.count_seen):
            np.minimum(seen, _TRUST_SHARED, out=seen)
        return made
