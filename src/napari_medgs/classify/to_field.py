"""One image's Gaussians as a field on the image's own grid, for files and the viewer."""

from __future__ import annotations

import numpy as np

from napari_medgs.classify.card import ModelCard
from napari_medgs.classify.gaussians import GaussianSet
from napari_medgs.field import FieldInfo, GaussianField
from napari_medgs.volume import Volume

THICKNESS = 0.5  # standard deviation across the single slice of a 2D image, voxels


def to_field(one: GaussianSet, volume: Volume, card: ModelCard) -> GaussianField:
    """Return the Gaussians of one image on the grid of a volume.

    Parameters
    ----------
    one : GaussianSet
        Of one image; its grid covers the same box as the volume's.
    volume : Volume
    card : ModelCard
        Says in which units intensities are.
    """
    n, d = one.count, one.ndim
    sizes = np.asarray(volume.shape[-d:], float) / np.asarray(one.shape, float)
    means, spread = np.zeros((n, 3)), np.zeros((n, 3, 3))
    means[:, 3 - d :] = (one.means[0].double().numpy() + 0.5) * sizes - 0.5
    spread[:, 3 - d :, 3 - d :] = one.covariances[0].double().numpy() * np.outer(sizes, sizes)
    if d == 2:
        spread[:, 0, 0] = THICKNESS**2
    # A fit's thinnest Gaussians are near singular in single precision.
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
    if one.mass:
        # Masses are in the fit's voxels; heights add up to about 1 inside the shape.
        det = np.linalg.det(one.covariances[0].double().numpy())
        weights = weights / np.sqrt((2 * np.pi) ** d * np.maximum(det, 1e-12))
    info = FieldInfo(
        grid=volume.grid,
        blend="sum" if one.mass else "normalized",
        degree=1,
        image_channels=volume.channel_names,
        intensity_scale=(scale,) * volume.channels,
        intensity_offset=(0.0,) * volume.channels,
        cutoff=16.0,
        params={"classify": card.fit},
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
