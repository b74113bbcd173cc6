"""The intensity that parts tissue from what is darker, found among the Gaussians of a field."""

from __future__ import annotations

import numpy as np

from napari_medgs.data.field import GaussianField
from napari_medgs.rendering.sections import intensities

BINS = 256


def tissue_threshold(field: GaussianField, channel: int = 0) -> float:
    """Return the intensity at which Otsu's method parts the Gaussians of a field.

    Every Gaussian counts alike, within the range of intensities that the fit called 0 to 1.

    Parameters
    ----------
    field : GaussianField
    channel : int
        Image channel.

    Returns
    -------
    float
        In the units of the image; the lowest intensity where all Gaussians are alike, or where
        the field has no image.

    References
    ----------
    Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on
    Systems, Man, and Cybernetics 9 (1979).

    Examples
    --------
    >>> from napari_medgs import FitParams, Volume, fit, make_phantom
    >>> volume = Volume.from_array(make_phantom(8.0).image)
    >>> field = fit(volume, FitParams(gaussians=300, iterations=10)).field
    >>> bool(volume.data.min() < tissue_threshold(field) < volume.data.max())
    True
    """
    if channel >= len(field.info.image_channels) or not len(field):
        return 0.0
    low = field.info.intensity_offset[channel]
    high = low + field.info.intensity_scale[channel]
    values = np.clip(intensities(field, channel), min(low, high), max(low, high))
    if float(values.max()) - float(values.min()) <= 1e-9 * max(abs(low), abs(high), 1e-30):
        return float(values.min())
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values, nbins=BINS))
