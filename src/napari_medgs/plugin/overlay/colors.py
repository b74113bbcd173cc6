"""Colors of Gaussians: by intensity, by class, by error, by a score of either sign."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.errors import ParameterError
from napari_medgs.rendering.sections import intensities, label_values

ColorBy = Literal["intensity", "class", "error", "score"]
Colors = NDArray[np.float32]
BACKGROUND_SHARE = 0.12  # of the intensity range: what is darker counts as background
FAINTEST = 0.2  # opacity of a score of zero
FAINT_SHARE = 0.05  # of the scores' range: what is nearer to zero says nothing


def gaussian_colors(
    field: GaussianField,
    color_by: ColorBy,
    colormap: str = "turbo",
    errors: NDArray[Any] | None = None,
    limits: tuple[float, float] | None = None,
    scores: NDArray[Any] | None = None,
) -> Colors:
    """Return one RGB color per Gaussian, (N, 3) in [0, 1].

    Parameters
    ----------
    field : GaussianField
    color_by : {"intensity", "class", "error", "score"}
    colormap : str
        Name of a napari colormap, for intensity, error and score.
    errors : (N,) ndarray, optional
        Absolute errors at the Gaussians; needed to color by error.
    limits : (float, float), optional
        Intensities of the colormap's ends, in units of the image; the field's own by default.
    scores : (N,) ndarray, optional
        Any values about zero, which is the middle of the colormap; needed to color by score.

    Raises
    ------
    ParameterError
        When the field has no classes, or no errors or scores are given, though they are to be
        shown.
    """
    from napari.utils.colormaps import ensure_colormap

    if color_by not in get_args(ColorBy):
        raise ParameterError(f"Gaussians cannot be colored by {color_by!r}.")
    if color_by == "class":
        if not field.info.class_names:
            raise ParameterError(
                "This field has no classes: fit it with a mask to color Gaussians by class."
            )
        return class_colors(label_values(field))
    if color_by == "error":
        if errors is None:
            raise ParameterError(
                "To color by error, the image that the field was fitted to must be in the viewer."
            )
        values = np.asarray(errors, dtype=np.float64)
        low, high = 0.0, float(np.percentile(values, 99)) if len(values) else 1.0
    elif color_by == "score":
        if scores is None:
            raise ParameterError(
                "This field has no scores: explain a class with the Classify widget to get some."
            )
        values = np.asarray(scores, dtype=np.float64)
        high = score_limit(values)
        low = -high
    else:
        values = intensities(field)
        low, high = limits or intensity_limits(field)
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    rgba = np.asarray(ensure_colormap(colormap).map(share))
    return rgba.reshape(-1, 4)[:, :3].astype(np.float32)


def score_limit(scores: NDArray[Any]) -> float:
    """Return the score of either sign at which the colormap ends: all but 2 % are within."""
    return max(float(np.percentile(np.abs(scores), 98)), 1e-9) if len(scores) else 1.0


def strengths(
    field: GaussianField, color_by: ColorBy, scores: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Return how clearly Gaussians are drawn in slices, (N,) up to 1.

    By score, those near zero are drawn faintly, or their pale middle colors would stand out
    most on a dark image. All others are drawn alike.
    """
    if color_by != "score" or scores is None:
        return np.ones(len(field), dtype=np.float32)
    share = np.minimum(np.abs(scores) / score_limit(scores), 1)
    return (FAINTEST + (1 - FAINTEST) * share).astype(np.float32)


def intensity_limits(field: GaussianField) -> tuple[float, float]:
    """Return the intensities that a fit calls 0 and 1, of the first channel."""
    if not field.info.image_channels:
        return 0.0, 1.0
    offset, scale = field.info.intensity_offset[0], field.info.intensity_scale[0]
    return offset, offset + scale


def class_colors(values: NDArray[Any]) -> Colors:
    """Return the colors that napari's Labels layers give to label values, (N, 3)."""
    from napari.layers import Labels

    table = Labels(np.zeros((1, 1), dtype=np.uint8))
    distinct, where = np.unique(values, return_inverse=True)
    colors = np.full((len(distinct), 3), 0.5, dtype=np.float32)
    for k, value in enumerate(distinct):
        color = table.get_color(int(value)) if value else None
        if color is not None:
            colors[k] = np.asarray(color).ravel()[:3]
    return colors[where.reshape(-1)]


def is_background(
    field: GaussianField,
    color_by: ColorBy,
    scores: NDArray[Any] | None = None,
    threshold: float | None = None,
) -> NDArray[np.bool_]:
    """Tell which Gaussians belong to the background, (N,).

    By class where classes are shown; where scores are, those next to zero; otherwise those below
    a threshold, in units of the image, or by default in the darkest part of the range.
    """
    if color_by == "score" and scores is not None:
        faint: NDArray[np.bool_] = np.abs(scores) < FAINT_SHARE * score_limit(scores)
        return faint
    if color_by == "class":
        return label_values(field) == 0
    if not field.info.image_channels:
        return np.zeros(len(field), dtype=bool)
    low, high = intensity_limits(field)
    if threshold is None:
        threshold = low + BACKGROUND_SHARE * (high - low)
    dark: NDArray[np.bool_] = intensities(field) < threshold
    return dark
