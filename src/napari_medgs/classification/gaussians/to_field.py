"""Conversion of one image's Gaussians to a field on the image's own grid, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medgs.classification.card import ModelCard, current_settings
from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.data.field import FieldInfo, GaussianField
from napari_medgs.data.volume import Volume

ABSENT_BELOW = -27.0  # log-weight that marks an absent Gaussian
THICKNESS = 0.5  # standard deviation across the single slice of a 2D image, voxels


def to_field(one: GaussianSet, volume: Volume, card: ModelCard) -> GaussianField:
    """Return the Gaussians of one image on the grid of a volume.

    Parameters
    ----------
    one : GaussianSet
        Of one image; its grid covers the same box as the volume's.
    volume : Volume
    card : ModelCard
        Determines the units of the intensities.

    Returns
    -------
    GaussianField
    """
    n, d = one.count, one.ndim
    sizes = np.asarray(volume.shape[-d:], float) / np.asarray(one.shape, float)
    means, spread = np.zeros((n, 3)), np.zeros((n, 3, 3))
    means[:, 3 - d :] = (one.means[0].double().numpy() + 0.5) * sizes - 0.5
    spread[:, 3 - d :, 3 - d :] = one.covariances[0].double().numpy() * np.outer(sizes, sizes)
    if d == 2:
        spread[:, 0, 0] = THICKNESS**2
    # The thinnest Gaussians of a fit are nearly singular in single precision.
    precision = np.linalg.inv(spread + 1e-6 * np.eye(3))
    pzz, pzy, pzx = precision[:, 0, 0], precision[:, 0, 1], precision[:, 0, 2]
    pyy, pyx, pxx = precision[:, 1, 1], precision[:, 1, 2], precision[:, 2, 2]
    # Complete squares in x, then y, then z: the field's own factors.
    shear = -pyx / pxx
    qyy, qzy, qzz = pyy - pyx**2 / pxx, pzy - pzx * pyx / pxx, pzz - pzx**2 / pxx
    fold = np.zeros((n, 3, 2))
    fold[:, 0, 1] = -qzy / qyy
    fold[:, 0, 0] = -pzx / pxx + shear * fold[:, 0, 1]
    rt = np.sqrt(np.maximum(qzz - qzy**2 / qyy, 1e-12))
    weights = one.weights[0].double().numpy()
    scale = 255.0 if card.preprocessing.get("intensity") == "uint8" else 1.0
    if one.occupancy:
        # Masses are in the fit's voxels; heights add up to about 1 inside the shape.
        det = np.linalg.det(one.covariances[0].double().numpy())
        weights = weights / np.sqrt((2 * np.pi) ** d * np.maximum(det, 1e-12))
    info = FieldInfo(
        grid=volume.grid,
        blend="sum" if one.occupancy else "normalized",
        degree=1,
        image_channels=volume.channel_names,
        intensity_scale=(scale,) * volume.channels,
        intensity_offset=(0.0,) * volume.channels,
        cutoff=16.0,
        params={"classify": card.fit},
        metrics={"residual": one.residual[0].tolist(), "gradient": one.gradient[0].tolist()},
    )
    return GaussianField(
        centers=means[:, [2, 1, 0]].astype(np.float32),
        log_precision=0.5 * np.log(np.stack([pxx, qyy, rt**2], 1)),
        shear=shear,
        fold=fold.astype(np.float32),
        log_weight=np.log(np.maximum(weights, 1e-12)),
        values=one.values[0].numpy(),
        background=np.zeros(volume.channels, np.float32),
        info=info,
    )


def from_field(field: GaussianField, card: ModelCard) -> GaussianSet | None:
    """Return the Gaussians of a field that :func:`to_field` made for this kind of classifier.

    None for all other fields: they must be rendered and fitted again, since the network was
    trained on Gaussians of these fits only.

    Parameters
    ----------
    field : GaussianField
    card : ModelCard

    Returns
    -------
    GaussianSet or None
    """
    import torch

    info, d = field.info, card.ndim
    occupancy = bool(card.fit.get("shape"))
    residual, gradient = info.metrics.get("residual"), info.metrics.get("gradient")
    own = (
        current_settings(info.params.get("classify") or {}) == card.fit
        and len(field) == card.fit.get("gaussians")
        and len(info.image_channels) == info.channels == card.channels
        and (info.grid.shape[0] == 1) == (d == 2)
        and info.slice_axis == 0
        and isinstance(residual, (list, tuple))
        and isinstance(gradient, (list, tuple))
        and len(residual) == len(gradient) == len(field)
    )
    if not own or residual is None or gradient is None:
        return None
    sizes = np.asarray(info.grid.shape[-d:], float) / np.asarray(card.shape, float)
    means = (field.voxel_centers()[:, 3 - d :] + 0.5) / sizes - 0.5
    spread = np.linalg.inv(field.voxel_precisions())[:, 3 - d :, 3 - d :]
    spread = spread / np.outer(sizes, sizes)
    weights = np.exp(field.log_weight.astype(np.float64))
    if occupancy:
        weights = weights * np.sqrt((2 * np.pi) ** d * np.maximum(np.linalg.det(spread), 1e-12))
    weights = np.where(field.log_weight < ABSENT_BELOW, 0, weights)

    def tensor(values: Any) -> Any:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]

    return GaussianSet(
        tensor(means), tensor(spread), tensor(field.values), tensor(weights), tensor(residual),
        tensor(gradient), card.shape, occupancy,
    )  # fmt: skip
