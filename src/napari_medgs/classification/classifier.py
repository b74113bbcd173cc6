"""A trained classifier: probabilities of images and fields, attribution to Gaussians."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.result import Attribution, Deletion, Prediction
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, ParameterError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_medgs.classification.gaussians.set import GaussianSet

RANDOM_DELETIONS = 8
BATCH = 64


class Classifier:
    """A trained network with its card.

    Parameters
    ----------
    card : ModelCard
    network : torch.nn.Module
        Is set to evaluation mode.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.classification import bundled_models, load_classifier
    >>> from napari_medgs.data.volume import Volume
    >>> classifier = load_classifier(bundled_models()["breastmnist"])
    >>> image = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)
    >>> prediction = classifier.predict(Volume.from_array(image))
    >>> sorted(prediction.probabilities)
    ['malignant', 'normal, benign']
    """

    def __init__(self, card: ModelCard, network: nn.Module) -> None:
        self.card, self.network = card, network.eval().requires_grad_(False)

    def predict(
        self,
        image: Volume | GaussianField,
        *,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> Prediction:
        """Return the probabilities of all classes.

        Parameters
        ----------
        image : Volume or GaussianField
            2D classifiers take volumes of one slice. The field of an earlier prediction
            (``Prediction.field``) is used as it is; other fields are rendered on their own grid
            and fitted again.
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        Prediction

        Raises
        ------
        ImageError
            When channels, dimensions or intensities differ from the classifier's.
        Cancelled
            When ``should_stop`` returned True.
        """
        from napari_medgs.classification.gaussians.to_field import to_field
        from napari_medgs.classification.inference import probabilities_of

        started = time.perf_counter()
        volume, inputs = self._read(image, progress, should_stop)
        probabilities = probabilities_of(self.network, inputs, self.card)[0]
        if not np.isfinite(probabilities).all():
            raise ParameterError(
                "The classifier gives no probabilities for this image: its weights overflow. "
                "The file is damaged, or its training diverged; train it again."
            )
        field = to_field(inputs, volume, self.card) if self.card.on_gaussians else None
        by_name = {n: float(p) for n, p in zip(self.card.class_names, probabilities, strict=True)}
        seconds = time.perf_counter() - started
        return Prediction(by_name, seconds, field, self._novelty(volume))

    def _novelty(self, volume: Volume) -> float | None:
        """Return how unlike an image is to the training images, if that is known."""
        from napari_medgs.classification.data.preprocess import prepare

        reference = self.card.reference
        if reference is None:
            return None
        return float(reference.novelty(prepare(volume, self.card)[None])[0])

    def attribute(
        self,
        image: Volume | GaussianField,
        class_index: int,
        method: Literal["gradient", "leave-out"] = "gradient",
        *,
        fraction: float = 0.1,
        seed: int = 0,
        progress: ProgressCallback = ignore_progress,
        should_stop: StopCallback = never_stop,
    ) -> Attribution:
        """Attribute a class to the Gaussians, with a deletion test.

        Parameters
        ----------
        image : Volume or GaussianField
        class_index : int
            From 0, in the order of the card's class names.
        method : {"gradient", "leave-out"}
            The derivative of the class's log-odds with respect to a factor on the Gaussian's
            weight, or the difference of the log-odds with and without the Gaussian.
        fraction : float
            Fraction of the Gaussians that the deletion test removes.
        seed : int
            Of the random deletions for comparison.
        progress, should_stop : callable, optional
            Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

        Returns
        -------
        Attribution

        Raises
        ------
        ParameterError
            When there is no such class or method, or the network does not read Gaussians.
        ImageError, Cancelled
            As :meth:`predict`.
        """
        from napari_medgs.classification.gaussians.to_field import to_field

        names = self.card.class_names
        if not self.card.on_gaussians:
            raise ParameterError(
                f"The network {self.card.model} does not read Gaussians: no attribution is "
                "possible."
            )
        if not 0 <= class_index < len(names):
            raise ParameterError(f"There is no class {class_index}: choose 0 to {len(names) - 1}.")
        if method not in ("gradient", "leave-out"):
            raise ParameterError(f"method must be gradient or leave-out, not {method!r}.")
        if not 0 < fraction < 1:
            raise ParameterError(f"fraction must be between 0 and 1, not {fraction}.")
        started = time.perf_counter()
        volume, inputs = self._read(image, progress, should_stop)
        if method == "gradient":
            scores = self._gradients(inputs, class_index)
        else:
            scores = self._left_out(inputs, class_index)
        _check(should_stop)
        deletion = self._delete(inputs, class_index, scores, fraction, seed)
        return Attribution(
            to_field(inputs, volume, self.card), scores, names[class_index], method, deletion,
            time.perf_counter() - started,
        )  # fmt: skip

    def _read(
        self, image: Volume | GaussianField, progress: ProgressCallback, should_stop: StopCallback
    ) -> tuple[Volume, Any]:
        """Return the image and the network's input."""
        from napari_medgs.classification.data.preprocess import check_shape, image_of, prepare
        from napari_medgs.classification.gaussians.to_field import from_field
        from napari_medgs.classification.inputs import network_inputs

        if self.card.is_shape and isinstance(image, Volume):
            check_shape(image)
        volume = image_of(image)
        if isinstance(image, GaussianField) and self.card.on_gaussians:
            own = from_field(image, self.card)
            if own is not None:
                return volume, own
        _check(should_stop)
        pixels = prepare(volume, self.card)[None]
        inputs = network_inputs(pixels, self.card, progress=progress, should_stop=should_stop)
        _check(should_stop)
        return volume, inputs

    def _log_odds(self, inputs: Any, index: int) -> Tensor:
        """Return (B,) log-odds of one class."""
        import torch

        from napari_medgs.classification.inference import logits_of

        logits = logits_of(self.network, inputs, self.card)
        if self.card.multi_label:
            return logits[:, index]
        others = [k for k in range(logits.shape[1]) if k != index]
        return logits[:, index] - torch.logsumexp(logits[:, others], 1)

    def _gradients(self, inputs: GaussianSet, index: int) -> Floats:
        import torch

        presence = torch.ones_like(inputs.weights).requires_grad_()
        gated = replace(inputs, weights=inputs.weights * presence)
        (slope,) = torch.autograd.grad(self._log_odds(gated, index).sum(), presence)
        return slope[0].numpy().astype(np.float32)

    def _without(self, inputs: GaussianSet, gone: list[Any]) -> GaussianSet:
        """Return copies of one image, each without some of its Gaussians."""
        copies = inputs[[0] * len(gone)]
        weights = copies.weights.clone()
        for row, which in enumerate(gone):
            weights[row, which] = 0
        return replace(copies, weights=weights)

    def _many(self, inputs: GaussianSet, index: int) -> Floats:
        import torch

        with torch.no_grad():
            parts = [
                self._log_odds(inputs[first : first + BATCH], index)
                for first in range(0, len(inputs), BATCH)
            ]
        return torch.cat(parts).numpy().astype(np.float32)

    def _left_out(self, inputs: GaussianSet, index: int) -> Floats:
        full = self._many(inputs, index)[0]
        singles = self._without(inputs, [[k] for k in range(inputs.count)])
        return np.asarray(full - self._many(singles, index), np.float32)

    def _delete(
        self, inputs: GaussianSet, index: int, scores: Floats, fraction: float, seed: int
    ) -> Deletion:
        present = np.flatnonzero(inputs.weights[0].numpy() > 0)
        count = min(max(1, round(fraction * len(present))), len(present) - 1)
        order = present[np.argsort(scores[present], kind="stable")]
        rng = np.random.default_rng(seed)
        chosen = [[], order[-count:], order[:count]]
        chosen += [rng.choice(present, count, replace=False) for _ in range(RANDOM_DELETIONS)]
        odds = self._many(self._without(inputs, chosen), index).astype(np.float64)
        chance = 1 / (1 + np.exp(-odds))
        return Deletion(
            count / len(present), float(chance[0]), float(chance[1]), float(chance[2]),
            float(chance[3:].mean()),
        )  # fmt: skip


def _check(should_stop: StopCallback) -> None:
    if should_stop():
        raise Cancelled("Canceled; there is no prediction.")
