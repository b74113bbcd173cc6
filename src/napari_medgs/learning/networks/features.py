"""Features of a pre-trained network as further channels of the image.

The network is any torch module that the user's own code makes: the image encoder of SAM, or of
another foundation model. It stays as it is; only a projection of its features to a few channels is
learned. Neither its weights nor its code are in the files of segmenters. They hold the import
path, which is imported when the user names it, never because a file says so.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_medgs.errors import ParameterError
from napari_medgs.learning.networks.slots import FeatureSource, SegmenterConfig
from napari_medgs.learning.networks.unet import convolution

if TYPE_CHECKING:
    from torch import Tensor

PROJECTED = 8
"""Channels that the features are projected to."""
PROBE = 32
"""Edge of the image of zeros that tells how many features there are."""


class FrozenFeatures:
    """A pre-trained module, not trained, copied or saved with the segmenter's own weights.

    Parameters
    ----------
    module : torch.nn.Module
        From (B, C, Y, X), or (B, C, Z, Y, X) where it has an attribute ``ndim`` of 3, to features
        (B, F, ...) of any resolution that cover the image from edge to edge.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)
        self.ndim = 3 if getattr(module, "ndim", 2) == 3 else 2

    def __deepcopy__(self, memo: Any) -> FrozenFeatures:
        """Averages of the weights share the module."""
        return self

    def __call__(self, image: Tensor) -> Tensor:
        """Return features (B, F, ...) of an image (B, C, ...); of a volume slice by slice."""
        self.module.to(image.device)
        flat = image.ndim == 5 and self.ndim == 2
        batch, depth = image.shape[0], image.shape[2]
        if flat:
            image = image.transpose(1, 2).flatten(0, 1)
        with torch.no_grad():
            found: Tensor = self.module(image)
        if flat:
            found = found.reshape(batch, depth, *found.shape[1:]).transpose(1, 2)
        return found

    def digest(self) -> str:
        """Return a digest of the module's weights."""
        found = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            data = value.detach().cpu().contiguous()
            found.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
            found.update(data.flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]


class FeatureChannels(nn.Module):
    """The image with projected features of a frozen module as further channels.

    Parameters
    ----------
    config : SegmenterConfig
        With ``features``.

    Attributes
    ----------
    frozen : FrozenFeatures, optional
        Has to be set before an image is seen.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        assert config.features is not None
        self.frozen: FrozenFeatures | None = None
        norm = nn.InstanceNorm3d if config.ndim == 3 else nn.InstanceNorm2d
        self.project = nn.Sequential(
            convolution(config.ndim)(config.features.channels, PROJECTED, 1, bias=False),
            norm(PROJECTED, affine=True),
        )
        self.mode = "trilinear" if config.ndim == 3 else "bilinear"

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C + 8, ...) of an image (B, C, ...)."""
        if self.frozen is None:
            raise ParameterError("The pre-trained features of the network were not loaded.")
        found = self.project(self.frozen(image).to(image.dtype))
        found = nn.functional.interpolate(found, image.shape[2:], mode=self.mode)
        return torch.cat([image, found.to(image.dtype)], 1)


def load_features(place: str, ndim: int, channels: int) -> tuple[FrozenFeatures, FeatureSource]:
    """Import a module of features, and see what it makes of an image.

    Runs the code that ``place`` names.

    Parameters
    ----------
    place : str
        ``package.module:factory``; the factory takes nothing and returns a torch module.
    ndim : {2, 3}
        Axes of the segmenter's images.
    channels : int
        Contrasts.

    Returns
    -------
    frozen : FrozenFeatures
    source : FeatureSource
        What the card of the segmenter says of it.

    Raises
    ------
    ParameterError
        When it cannot be imported, or gives no features.
    """
    source = FeatureSource(place)
    name, _, attribute = source.place.partition(":")
    try:
        factory: Any = import_module(name)
        for part in attribute.split("."):
            factory = getattr(factory, part)
        module = factory()
    except ModuleNotFoundError as error:
        raise ParameterError(
            f"{place}: there is no module {error.name}; install it, or add its folder to "
            "PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise ParameterError(f"{place}: {error}.") from error
    except Exception as error:  # whatever the user's code raises
        raise ParameterError(f"{place} failed: {_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ParameterError(f"{place} made {type(module).__name__}, not a torch.nn.Module.")
    frozen = FrozenFeatures(module)
    if frozen.ndim > ndim:
        raise ParameterError(f"{place} takes volumes, the images are slices.")
    try:
        found = frozen(torch.zeros(1, channels, *(PROBE,) * ndim))
    except Exception as error:
        raise ParameterError(
            f"{place} refuses an image of {channels} contrast(s): {_line(error)}"
        ) from error
    if not isinstance(found, torch.Tensor) or found.ndim != 2 + ndim or len(found) != 1:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ParameterError(
            f"{place} gives {shape} for an image; expected are features "
            f"(1, F{', z' * (ndim == 3)}, y, x)."
        )
    return frozen, FeatureSource(place, int(found.shape[1]), frozen.digest())


def check_same_features(found: FeatureSource, wanted: FeatureSource) -> None:
    """Refuse features that are not those of the training.

    Raises
    ------
    ParameterError
        When their number or the weights differ.
    """
    if (found.channels, found.digest) != (wanted.channels, wanted.digest):
        raise ParameterError(
            f"The features of {found.place} are not those that the model was trained with "
            f"({wanted.place}): their weights differ."
        )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
