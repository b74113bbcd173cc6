"""Network inputs of images: pixels, Gaussians or weights, with a cache of fits on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medgs._util.progress import ProgressCallback, StopCallback, ignore_progress, never_stop
from napari_medgs.classification.card import ModelCard
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.io._atomic import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.classification.gaussians.set import GaussianSet

FIT_VERSION = "1"  # of the algorithms: a change invalidates cached fits


def network_inputs(
    images: NDArray[Any],
    card: ModelCard,
    *,
    cache_dir: str | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> Any:
    """Return a tensor of pixels or weights, or a GaussianSet, of images (B, C, ...) in [0, 1].

    Parameters
    ----------
    images : (B, C, ...) float32 ndarray
    card : ModelCard
        Its model, preprocessing and fit determine the inputs.
    cache_dir : str, optional
        Folder of cached fits, by content and settings; None or "" for no cache.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    torch.Tensor or GaussianSet
        One input per image.

    Raises
    ------
    ImageError
        When an image cannot be fitted.
    Cancelled
        When ``should_stop`` returned True.
    """
    import torch

    from napari_medgs.classification.data.preprocess import centered_window

    images = np.ascontiguousarray(images, np.float32)
    window = card.preprocessing.get("window")
    if window:
        images = centered_window(images, tuple(int(n) for n in window))
    if card.model == "resnet8":
        return torch.from_numpy(images)
    if card.model == "inr2vec":
        from napari_medgs.classification.networks.siren import fit_sirens

        return fit_sirens(images, progress=progress, should_stop=should_stop)
    settings = FitSettings(**card.fit)
    found = _cached(images, settings, cache_dir)
    if found is not None:
        return found
    from napari_medgs.classification.gaussians.fit import fit_images

    fitted = fit_images(images, settings, progress=progress, should_stop=should_stop)
    if cache_dir:
        _store(images, settings, cache_dir, fitted)
    return fitted


def default_cache() -> str:
    """Return the default folder of cached fits."""
    import pooch

    return str(Path(pooch.os_cache("napari-medgs")) / "gaussians")


def _cache_path(images: NDArray[Any], settings: FitSettings, folder: str) -> Path:
    digest = hashlib.sha256(FIT_VERSION.encode())
    digest.update(json.dumps([settings.to_dict(), images.shape], sort_keys=True).encode())
    digest.update(images.tobytes())
    return Path(folder) / f"{digest.hexdigest()[:32]}.safetensors"


def _cached(images: NDArray[Any], settings: FitSettings, folder: str | None) -> GaussianSet | None:
    if not folder:
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from napari_medgs.classification.gaussians.set import GaussianSet
    from napari_medgs.errors import ParameterError

    path = _cache_path(images, settings, folder)
    try:
        tensors = load_file(path) if path.is_file() else None
        if tensors is None:
            return None
        shape = tuple(int(n) for n in images.shape[2:])
        return GaussianSet(**tensors, shape=shape, occupancy=settings.shape)
    except (SafetensorError, OSError, TypeError, ParameterError):
        return None  # a damaged entry is replaced


def _store(images: NDArray[Any], settings: FitSettings, folder: str, fitted: GaussianSet) -> None:
    from safetensors.torch import save

    Path(folder).mkdir(parents=True, exist_ok=True)
    names = fitted.tensor_names()
    tensors = {name: getattr(fitted, name).contiguous() for name in names}
    with atomic_path(_cache_path(images, settings, folder), cache=True) as temporary:
        temporary.write_bytes(save(tensors))


def input_bytes(inputs: Any) -> int:
    """Return the bytes of one network input (float32)."""
    from napari_medgs.classification.gaussians.set import GaussianSet

    if isinstance(inputs, GaussianSet):
        return inputs.nbytes()
    return int(4 * inputs[0].numel())
