"""What the widgets ask of the core, bound to arguments and ready for a thread. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import ProgressCallback, ProgressEvent, StopCallback
from napari_medgs.data.field import GaussianField
from napari_medgs.plugin.field_images import Rendered, errors_at, render_field
from napari_medgs.plugin.layer_frame import LayerFrame
from napari_medgs.plugin.layer_metadata import NAMES_KEY, field_of
from napari_medgs.plugin.layer_orientation import grid_warning
from napari_medgs.plugin.layer_volumes import labels_like, volume_from_layers
from napari_medgs.plugin.report import prepared_volume

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.fitting import FitParams, FitResult
    from napari_medgs.metrics import ImageDifference


@dataclass(frozen=True)
class FitRequest:
    """Everything that a fit needs, taken out of the layers.

    Attributes
    ----------
    volume : Volume
    frame : LayerFrame
    params : FitParams
    mask : (Z, Y, X) ndarray or None
    class_names : dict of int to str
    initial : GaussianField or None
    remarks : tuple of str
        What was done to the image, for the user.
    """

    volume: Volume
    frame: LayerFrame
    params: FitParams
    mask: NDArray[Any] | None
    class_names: dict[int, str]
    initial: GaussianField | None = None
    remarks: tuple[str, ...] = ()

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> FitOutcome:
        """Fit, then render what is to be shown."""
        from napari_medgs.fitting import fit

        result = fit(
            self.volume,
            self.params,
            self.mask,
            class_names=self.class_names,
            initial=self.initial,
            progress=progress,
            should_stop=should_stop,
        )
        seconds = float(result.metrics.get("seconds", 0.0))
        progress(ProgressEvent("render", 0, 0, seconds, result.metrics.get("psnr")))
        rendered = render_field(result.field, self.params.backend, self.params.threads)
        return FitOutcome(self, result, rendered, self.volume.data)


@dataclass(frozen=True)
class FitOutcome:
    """A fit and its pictures."""

    request: FitRequest
    result: FitResult
    rendered: Rendered
    target: NDArray[Any]

    def errors(self) -> NDArray[np.float64]:
        """Return the mean absolute image error at every Gaussian, (N,)."""
        return errors_at(self.result.field, self.target, self.rendered.images)


@dataclass(frozen=True)
class FindDifference:
    """Subtract the image from its reconstruction, in the first contrast.

    Attributes
    ----------
    outcome : FitOutcome
    """

    outcome: FitOutcome

    def __call__(self, progress: ProgressCallback, should_stop: StopCallback) -> ImageDifference:
        """Return the difference on the canonical grid."""
        from napari_medgs.metrics import image_difference

        return image_difference(self.outcome.target[0], self.outcome.rendered.images[0])


def make_fit_request(
    images: Sequence[Any],
    mask: Any | None,
    params: FitParams,
    initial_layer: Any | None = None,
    *,
    resample: bool = False,
) -> FitRequest:
    """Take a fit's input out of layers, checking what can be checked at once.

    It may run in a thread: it reads layers, and changes nothing.

    Parameters
    ----------
    images : sequence of napari.layers.Image
    mask : napari.layers.Labels, optional
    params : FitParams
    initial_layer : napari.layers.Layer, optional
        One that carries a field to start from.
    resample : bool
        Bring a mask of another grid onto the images' voxels, by the nearest label.

    Raises
    ------
    MedGSError
        For layers that cannot be fitted.
    """
    volume, frame = volume_from_layers(images)
    volume, remarks = prepared_volume(volume)
    array, names = None, {}
    if mask is not None:
        # A copy: the user may go on painting while the fit runs.
        array = labels_like(mask, images[0], frame, resample=resample).copy()
        names = dict(mask.metadata.get(NAMES_KEY, {}))
    initial = field_of(initial_layer) if initial_layer is not None else None
    return FitRequest(volume, frame, params, array, names, initial, remarks)


def file_size(count: float) -> str:
    """Return a number of bytes as people read it.

    Examples
    --------
    >>> file_size(640), file_size(20_480), file_size(3 * 2**20)
    ('640 bytes', '20 KiB', '3.0 MiB')
    """
    if count < 1024:
        return f"{count:.0f} bytes"
    if count < 2**20:
        return f"{count / 1024:.0f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def summary_of(outcome: FitOutcome, name: str) -> str:
    """Return a fit's result in a few words of HTML for the widget.

    Parameters
    ----------
    outcome : FitOutcome
    name : str
        Of the image.
    """
    metrics, result = outcome.result.metrics, outcome.result
    parts = [f"<b>{len(result.field):,} Gaussians</b>"]
    if metrics.get("psnr") is not None:
        parts.append(f"<b>{metrics['psnr']:.1f} dB</b> PSNR")
    if metrics.get("ssim") is not None:
        parts.append(f"SSIM {metrics['ssim']:.3f}")
    lines = [f"<b>{escape(name)}</b>", " · ".join(parts)]
    dice = metrics.get("dice") or {}
    if dice:
        names = dict(zip(result.field.info.label_values, result.field.info.class_names))
        shown = [f"{names.get(int(k), k)} {v:.3f}" for k, v in list(dice.items())[:6]]
        more = f" and {len(dice) - 6} more" if len(dice) > 6 else ""
        lines.append("Dice: " + ", ".join(shown) + more)
    if "psnr_heldout" in metrics:
        cubic = metrics.get("psnr_heldout_cubic")
        than = f" (cubic interpolation {cubic:.1f} dB)" if cubic is not None else ""
        lines.append(f"Slices left out: {metrics['psnr_heldout']:.1f} dB{than}")
    size, raw = file_size(result.field.nbytes), file_size(outcome.target.nbytes)
    lines.append(
        f"{metrics.get('seconds', 0):.1f} s on {metrics.get('backend', '?')} · "
        f"{size} for an image of {raw}"
    )
    if result.stopped_by == "cancelled":
        lines.append("<i>Canceled: this is the last good state.</i>")
    elif result.stopped_by in ("quality", "time"):
        lines.append(f"<i>Stopped by the {result.stopped_by} limit.</i>")
    if "quality_missed" in metrics and result.stopped_by != "cancelled":
        lines.append(f"<b>{escape(metrics['quality_missed'])}</b>")
    warning = grid_warning(outcome.request.frame.grid, name)
    if warning is not None:
        lines.append(f"<i>{escape(warning)}</i>")
    return "<br>".join(lines)
