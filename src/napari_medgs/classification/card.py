"""The model card: everything about a trained classifier except its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypedDict

from napari_medgs._util.records import checked, checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.classification.novelty import Reference
from napari_medgs.errors import FileError, ParameterError


class ModelKind(StrEnum):
    """Kinds of networks.

    ``hybrid`` renders Gaussians to a grid inside the network and convolves it; ``edge`` and
    ``gnn`` are graph networks on Gaussians; ``resnet8`` reads pixels; ``inr2vec`` reads the
    weights of implicit neural representations.
    """

    HYBRID = "hybrid"
    EDGE = "edge"
    GNN = "gnn"
    RESNET8 = "resnet8"
    INR2VEC = "inr2vec"

    @property
    def on_gaussians(self) -> bool:
        """Whether the network reads Gaussians."""
        return self in (ModelKind.HYBRID, ModelKind.EDGE, ModelKind.GNN)

    @property
    def is_graph(self) -> bool:
        """Whether the network passes messages between Gaussians."""
        return self in (ModelKind.EDGE, ModelKind.GNN)


class Task(StrEnum):
    """Kinds of labels, in MedMNIST's words."""

    BINARY = "binary-class"
    MULTI_CLASS = "multi-class"
    ORDINAL = "ordinal-regression"
    MULTI_LABEL = "multi-label, binary-class"


MODELS: tuple[str, ...] = tuple(kind.value for kind in ModelKind)
SUFFIX = ".safetensors"
DISCLAIMER = "Research software: what a classifier says is no diagnosis."
_RENAMED_SETTINGS = {"neighbours": "neighbors"}
_DAMAGED = "The classifier's card is damaged or of an unknown kind."


class _Preprocessing(TypedDict, total=False):
    """Entries of ``ModelCard.preprocessing``."""

    intensity: Literal["uint8", "percentile", "shape"]
    tta: bool
    window: list[int] | None


@dataclass(frozen=True)
class _NetworkSettings:
    """Ranges of the arguments of all kinds of networks; their defaults are the networks' own."""

    grid: tuple[int, ...] = setting((), low=1, high=512)
    patch: int = setting(1, low=1, high=64)
    neighbors: int = setting(1, low=1, high=4096)
    width: int = setting(1, low=1, high=4096)
    blocks: int = setting(1, low=0, high=64)
    widths: tuple[int, ...] = setting((1,), low=1, high=4096)
    shape_input: bool = setting(False)
    raw: bool = setting(False)

    def __post_init__(self) -> None:
        check(self)
        if not 1 <= len(self.widths) <= 64:
            raise ParameterError("network.widths must be 1 to 64 numbers.")


@dataclass(frozen=True)
class ModelCard:
    """Description of a classifier, stored with its weights.

    Attributes
    ----------
    model : ModelKind
        Kind of network; its name as text will do.
    dataset : str
        Training data.
    task : Task
        Kind of labels; its name as text will do.
    class_names : tuple of str
        One per class, or per label of a multi-label task.
    channels : int
        Channels of its images: 1, or 3 for RGB.
    ndim : {2, 3}
        Dimensions of its images.
    shape : tuple of int
        (Y, X) or (Z, Y, X) to which images are resized.
    preprocessing : dict
        "intensity": "uint8", "percentile" or "shape"; "tta": average over flips (test-time
        augmentation); "window": crop of shapes for pixel networks.
    fit : dict
        How images become Gaussians, see
        :class:`~napari_medgs.classification.gaussians.settings.FitSettings`.
    network : dict
        Arguments of the network's constructor.
    training : dict
        Settings of the training run.
    metrics : dict
        Measured on the official or given splits: test_auc, test_acc and their 95 % intervals,
        val_auc; absent where there was no test split.
    parameters : int
        Number of trainable parameters.
    novelty : dict
        What its training images are like, see
        :class:`~napari_medgs.classification.novelty.Reference`; empty where that is not known.
    seed : int
        Of all random choices.
    note : str
        Shown wherever the classifier is used.

    Raises
    ------
    FileError
        When the values do not describe a classifier.

    Examples
    --------
    >>> card = ModelCard("hybrid", "mine", "multi-class", ("a", "b"), 1, 2, (28, 28))
    >>> card.model.on_gaussians, card.multi_label
    (True, False)
    """

    model: ModelKind
    dataset: str
    task: Task
    class_names: tuple[str, ...]
    channels: int
    ndim: int
    shape: tuple[int, ...]
    preprocessing: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    novelty: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    note: str = DISCLAIMER

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(str(n) for n in self.class_names))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        try:
            object.__setattr__(self, "model", ModelKind(self.model))
            object.__setattr__(self, "task", Task(self.task))
        except ValueError as error:
            raise FileError(_DAMAGED) from error
        good = (
            len(self.class_names) >= (1 if self.multi_label else 2)
            and self.ndim in (2, 3)
            and len(self.shape) == self.ndim
            and all(4 <= n <= 512 for n in self.shape)
            and 1 <= self.channels <= 16
        )
        if not good:
            raise FileError(_DAMAGED)

    @property
    def multi_label(self) -> bool:
        """Whether every class is a binary label of its own."""
        return self.task is Task.MULTI_LABEL

    @property
    def is_shape(self) -> bool:
        """Whether images are binary shapes instead of gray values."""
        return self.preprocessing.get("intensity") == "shape"

    @property
    def on_gaussians(self) -> bool:
        """Whether the network reads Gaussians, so that each can be given a score."""
        return self.model.on_gaussians

    @property
    def reference(self) -> Reference | None:
        """What the training images are like, None where that is not known."""
        return Reference.from_dict(self.novelty) if self.novelty else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {**asdict(self), "model": self.model.value, "task": self.task.value}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ModelCard:
        """Return the card that :meth:`to_dict` described; unknown keys are ignored.

        Raises
        ------
        FileError
            When the values describe no classifier.
        """
        try:
            known = checked(dict, record, "card")
            for name in ("fit", "network"):
                if isinstance(known.get(name), dict):
                    known[name] = current_settings(known[name])
            card: ModelCard = checked_record(cls, known)
            checked(_Preprocessing, card.preprocessing, "preprocessing")
            checked_record(_NetworkSettings, card.network, "network")
            if card.novelty:
                Reference.from_dict(card.novelty)
        except ParameterError as error:
            raise FileError(f"{_DAMAGED} {error}") from error
        return card


def current_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a fit or network with the present names, whichever version wrote them.

    Examples
    --------
    >>> current_settings({"neighbours": 8})
    {'neighbors': 8}
    """
    return {_RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}


def bundled_models() -> dict[str, Path]:
    """Return the classifiers that come with the package, by name.

    The names are those of the datasets ("breastmnist"); the files are read with
    :func:`~napari_medgs.classification.load_classifier`.

    Returns
    -------
    dict of str to Path

    Examples
    --------
    >>> list(bundled_models())
    ['adrenalmnist3d', 'breastmnist', 'retinamnist']
    """
    folder = Path(__file__).parent / "models"
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
