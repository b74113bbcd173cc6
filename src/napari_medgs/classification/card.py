"""What a trained classifier is: the card that its file carries and every surface shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from napari_medgs.errors import FileError

Model = Literal["hybrid", "edge", "gnn", "resnet8", "inr2vec"]
MODELS: tuple[str, ...] = get_args(Model)
Task = Literal["binary-class", "multi-class", "ordinal-regression", "multi-label, binary-class"]
TASKS: tuple[str, ...] = get_args(Task)
SUFFIX = ".safetensors"
DISCLAIMER = "Research software: what a classifier says is no diagnosis."


@dataclass(frozen=True)
class ModelCard:
    """All about a classifier that is not a weight.

    Attributes
    ----------
    model : {"hybrid", "edge", "gnn", "resnet8", "inr2vec"}
        Kind of network.
    dataset : str
        What it was trained on.
    task : str
        "binary-class", "multi-class", "ordinal-regression" or "multi-label, binary-class".
    class_names : tuple of str
        One a class, or one a label of a multi-label task.
    channels : int
        Channels of its images: 1, or 3 for RGB.
    ndim : {2, 3}
        Axes of its images.
    shape : tuple of int
        (Y, X) or (Z, Y, X) that images are brought to.
    preprocessing : dict
        "intensity": "uint8", "percentile" or "shape"; "crop": window of pixel models, or None.
    fit : dict
        How images become Gaussians, see
        :class:`~napari_medgs.classification.training.params.FitSettings`.
    network : dict
        Arguments that make the network.
    training : dict
        Settings of the training run.
    metrics : dict
        Measured on the official or given splits: test_auc, test_acc and their 95 % intervals,
        val_auc; absent where there was no test split.
    parameters : int
        Trainable numbers.
    seed : int
    note : str
        Said wherever the classifier is used.
    """

    model: str
    dataset: str
    task: str
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
    seed: int = 0
    note: str = DISCLAIMER

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(str(n) for n in self.class_names))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        good = (
            self.model in MODELS
            and self.task in TASKS
            and len(self.class_names) >= (1 if self.multi_label else 2)
            and self.ndim in (2, 3)
            and len(self.shape) == self.ndim
            and all(4 <= n <= 512 for n in self.shape)
            and 1 <= self.channels <= 16
        )
        if not good:
            raise FileError("The classifier's description is damaged or of an unknown kind.")

    @property
    def multi_label(self) -> bool:
        """Every class is a yes or no of its own."""
        return self.task.startswith("multi-label")

    @property
    def is_shape(self) -> bool:
        """Images are masks of a shape, not grey values."""
        return self.preprocessing.get("intensity") == "shape"

    @property
    def on_gaussians(self) -> bool:
        """The network reads Gaussians, so that they can be given scores."""
        return self.model in ("hybrid", "edge", "gnn")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ModelCard:
        """Make a card of :meth:`to_dict`'s values; unknown keys are ignored.

        Raises
        ------
        FileError
            When the values describe no classifier.
        """
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        try:
            return cls(**known)
        except (TypeError, ValueError) as error:
            raise FileError("The classifier's description is damaged.") from error


def bundled_models() -> dict[str, Path]:
    """Return the classifiers that come with the package, by name.

    The names are those of the data sets ("breastmnist"); the files are read with
    :func:`~napari_medgs.classification.load_classifier`.
    """
    folder = Path(__file__).parent / "models"
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
