"""What the Classify widget asks of the core, and its results in words. No Qt."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.data.preprocess import check_shape
from napari_medgs.classification.files import load_card
from napari_medgs.classification.result import Attribution, Deletion, Prediction
from napari_medgs.data.field import GaussianField
from napari_medgs.errors import Cancelled, ImageError
from napari_medgs.plugin.layer_frame import LayerFrame, visible_slice
from napari_medgs.plugin.layer_metadata import field_of, frame_of_field
from napari_medgs.plugin.layer_volumes import volume_from_layers, volume_from_rgb
from napari_medgs.plugin.report import prepared

if TYPE_CHECKING:
    from napari_medgs.classification.classifier import Classifier
    from napari_medgs.data.volume import Volume

Method = Literal["gradient", "leave-out"]
FOR, AGAINST = "#dc5e4b", "#6081eb"  # as the overlay's colormap ends


@dataclass(frozen=True)
class ClassifyRequest:
    """Everything that a prediction needs, taken out of a layer.

    Attributes
    ----------
    source : Volume or GaussianField
    frame : LayerFrame
        From the source's grid to the layer.
    name : str
        Of the layer.
    model : Path
        The classifier's file.
    is_slice : bool
        Whether the source is one slice of the layer.
    """

    source: Volume | GaussianField
    frame: LayerFrame
    name: str
    model: Path
    is_slice: bool = False

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> ClassifyOutcome:
        """Load the classifier, then predict."""
        from napari_medgs.classification import load_classifier

        progress(ProgressEvent("loading the model", 0, 0, 0.0))
        classifier = load_classifier(self.model)
        if should_stop():
            raise Cancelled("Canceled.")
        prediction = classifier.predict(self.source, progress=progress, should_stop=should_stop)
        return ClassifyOutcome(self, classifier, prediction)


@dataclass(frozen=True)
class ClassifyOutcome:
    """A prediction and what made it."""

    request: ClassifyRequest
    classifier: Classifier
    prediction: Prediction

    @property
    def card(self) -> ModelCard:
        """The classifier's card."""
        return self.classifier.card

    @property
    def explainable(self) -> bool:
        """Whether the network read Gaussians, which can be scored."""
        there = self.card.on_gaussians and self.prediction.field is not None
        return there and not self.request.is_slice


@dataclass(frozen=True)
class ExplainRequest:
    """A class of a prediction whose evidence is wanted.

    Attributes
    ----------
    outcome : ClassifyOutcome
    class_index : int
    method : {"gradient", "leave-out"}
    """

    outcome: ClassifyOutcome
    class_index: int
    method: Method = "gradient"

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> Attribution:
        """Score the very Gaussians that the prediction was made of, without fitting again."""
        progress(ProgressEvent("scoring the Gaussians", 0, 0, 0.0))
        field = self.outcome.prediction.field
        source = self.outcome.request.source if field is None else field
        return self.outcome.classifier.attribute(
            source, self.class_index, self.method, progress=progress, should_stop=should_stop
        )


def make_classify_request(
    layer: Any | None, model: Path | None, dims: Any | None = None
) -> ClassifyRequest:
    """Take a prediction's input out of a layer, checking what can be checked at once.

    Parameters
    ----------
    layer : napari.layers.Layer, optional
        An Image, gray or RGB, a mask for classifiers of shapes, or any layer with a field.
    model : Path, optional
    dims : napari.components.Dims, optional
        Of the viewer: classifiers of pictures get the slice of a volume that it shows.

    Raises
    ------
    MedGSError
        When a choice is missing, or for layers that are neither.
    """
    if layer is None:
        raise ImageError("Choose an image to classify: open one first.")
    if model is None:
        raise ImageError("Choose a model: one of the package's, or a file that training wrote.")
    field = field_of(layer)
    is_mask = type(layer).__name__ == "Labels" and load_card(model).is_shape
    if field is not None and not is_mask:
        return ClassifyRequest(field, frame_of_field(layer), layer.name, model)
    if getattr(layer, "rgb", False):
        volume, frame = volume_from_rgb(layer)
    elif _looks_like_colors(layer, model):
        raise ImageError(
            f"{layer.name!r} has {layer.data.shape[-1]} colors as its last axis, but was not "
            "opened as RGB. Open its set with the Load widget, or add it with rgb=True."
        )
    else:
        volume, frame = volume_from_layers([layer])
        if load_card(model).is_shape:
            check_shape(volume)
        volume = prepared(volume)
        if volume.shape[0] > 1 and dims is not None and load_card(model).ndim == 2:
            return _slice_request(volume, frame, layer, model, dims)
    return ClassifyRequest(volume, frame, layer.name, model)


def _slice_request(
    volume: Volume, frame: LayerFrame, layer: Any, model: Path, dims: Any
) -> ClassifyRequest:
    """Take the slice on show out of a volume, upright."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.data.volume import Volume

    place = visible_slice(dims, layer, frame)
    if place is None:
        raise ImageError(
            f"The classifier reads pictures and {layer.name!r} is a volume: show one of its "
            "slices in the 2D view, which is then classified."
        )
    axis, index = place
    data = np.moveaxis(volume.data, axis + 1, 1)[:, index : index + 1]
    if axis:  # superior up
        data = data[:, :, ::-1]
    grid = Grid((1, data.shape[2], data.shape[3]))
    picture = Volume(np.ascontiguousarray(data), grid, volume.channel_names)
    name = f"slice {index} along {'zyx'[axis]} of {layer.name}"
    return ClassifyRequest(picture, LayerFrame(grid), name, model, is_slice=True)


def _looks_like_colors(layer: Any, model: Path) -> bool:
    """Tell whether a small RGB picture was taken for a stack, as napari does below 30 pixels."""
    card = load_card(model)
    stack = layer.ndim == 3 and layer.data.shape[-1] in (3, 4)
    return bool(stack and card.ndim == 2 and card.channels == 3)


def dataset_title(name: str) -> str:
    """Return a data set's name as its authors write it ("BreastMNIST")."""
    found = re.fullmatch(r"([a-z]+)mnist(3d)?", name)
    return f"{found[1].capitalize()}MNIST{(found[2] or '').upper()}" if found else name


def class_title(name: str) -> str:
    """Return a class's name; "class 3" where it is only a number."""
    return f"class {name}" if name.isdigit() else name


def describe_card(card: ModelCard) -> str:
    """Return what a classifier is and how good it was, as HTML."""
    axes = " × ".join(str(n) for n in card.shape)
    kind = {1: "gray", 3: "RGB"}.get(card.channels, f"{card.channels}-channel")
    images = f"{kind} {card.ndim}D images"
    if card.is_shape:
        images = f"masks ({card.ndim}D shapes, inside or outside)"
    reads = f"{card.fit.get('gaussians', '')} Gaussians" if card.on_gaussians else "pixels"
    classes = f"{len(card.class_names)} {'labels' if card.multi_label else 'classes'}"
    lines = [
        f"Trained on <b>{html.escape(dataset_title(card.dataset))}</b>: {images} of {axes}, "
        f"{classes}.",
        _tested(card),
        f"Network: {card.model} on {reads}, {card.parameters:,} parameters.",
    ]
    return "<br>".join(lines)


def _tested(card: ModelCard) -> str:
    parts = []
    for key, title in (("auc", "AUC"), ("acc", "accuracy")):
        value = card.metrics.get(f"test_{key}")
        if value is not None:
            interval = card.metrics.get(f"test_{key}_ci")
            between = f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else ""
            parts.append(f"{title} <b>{value:.3f}</b>{between}")
    if not parts:
        return "No test results are recorded."
    return "On its test images: " + ", ".join(parts) + "."


def describe_prediction(outcome: ClassifyOutcome) -> str:
    """Return a prediction in words, as HTML."""
    prediction, card = outcome.prediction, outcome.card
    best = class_title(prediction.best)
    share = prediction.probabilities[prediction.best]
    title = f"<b>{html.escape(best)} {percent(share)}</b>"
    if prediction.is_undecided and not card.multi_label:
        title = f"<b>Undecided</b>: most probable is {html.escape(best)} {percent(share)}"
    lines = [f"{title} for {html.escape(outcome.request.name)}"]
    if card.multi_label:
        lines.append("Labels are independent: each has its own probability.")
    if outcome.request.is_slice:
        lines.append("Explain needs the slice as a picture of its own: open it from its file.")
    lines.append(f"{prediction.seconds:.2f} s for the prediction")
    return "<br>".join(lines)


def describe_novelty(outcome: ClassifyOutcome) -> str:
    """Return a warning, as HTML, about an image unlike the training images; else nothing."""
    prediction = outcome.prediction
    if not prediction.is_unlike:
        return ""
    name = html.escape(dataset_title(outcome.card.dataset))
    reference = outcome.card.reference
    assert reference is not None
    share = reference.false_alarms
    return (
        f"<b>This image is unlike those of {name} that the classifier was trained on.</b> Do not "
        "rely on what it says: a network answers anything, noise too. "
        f"(Distance {prediction.novelty:.1f} times that which {100 * share:.0f} % of those images "
        "exceed.)"
    )


def describe_attribution(attribution: Attribution) -> str:
    """Return an explanation and its check in words, as HTML."""
    name = html.escape(class_title(attribution.class_name))
    legend = (
        f"<span style='color:{FOR}'>■</span> evidence for <b>{name}</b><br>"
        f"<span style='color:{AGAINST}'>■</span> evidence against it"
    )
    return f"{legend}<p style='margin:6px 0 0 0'>{describe_deletion(attribution.deletion)}</p>"


def describe_deletion(deletion: Deletion) -> str:
    """Return the deletion check in words: whether the marked Gaussians matter to the network."""
    rows = (
        ("with all Gaussians", deletion.probability),
        ("without those most for it", deletion.without_highest),
        ("without random ones", deletion.without_random),
        ("without those most against it", deletion.without_lowest),
    )
    cells = "".join(
        f"<tr><td>{what} &nbsp;</td><td align='right'><b>{percent(share)}</b></td></tr>"
        for what, share in rows
    )
    verdict = "The marked Gaussians matter to the network."
    if not deletion.supported:
        verdict = (
            "<b>Removing the marked Gaussians changes no more than removing random ones: do not "
            "rely on the colors.</b>"
        )
    title = f"Check: its probability when {deletion.fraction:.0%} of the Gaussians are removed"
    return f"{title}<table>{cells}</table>{verdict}"


def percent(share: float) -> str:
    """Return a fraction in percent; never rounded to 0 or 100 %."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"
