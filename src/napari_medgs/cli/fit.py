"""``napari-medgs fit``: fit a field of Gaussians to images and, optionally, a mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs._util.naming import naming
from napari_medgs.cli.command import CANCELLED, print_error, refuse_idle, stoppable
from napari_medgs.cli.fit_options import takes_fit_params
from napari_medgs.cli.option_groups import takes_groups
from napari_medgs.cli.options import (
    DebugOption,
    DeshearOption,
    JsonOption,
    QuietOption,
    Reading,
    ResampleOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output
from napari_medgs.fitting.params import FitParams
from napari_medgs.io.fields import SUFFIXES, is_compressed_field

if TYPE_CHECKING:
    from napari_medgs.fitting import FitResult

DEFAULTS = FitParams()
MOST_LABELS = 10  # are listed after a fit, those of the lowest Dice
OF_GEOMETRY = ("--gaussians", "--quality", "--lambda-img", "--loss", "--interpolate")
START, RUNNING = "Starting from a field", "Saved while it runs"


def save_positions(path: Path, positions: list[tuple[int, Any]]) -> None:
    """Write snapshots of the centers, one array per snapshot, such as ``step_00010``."""
    import numpy as np

    from napari_medgs.io import atomic_path

    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **{f"step_{k:05d}": c for k, c in positions})


EXAMPLES = (
    "napari-medgs fit scan.nii.gz -o scan.medgs.safetensors --quality 34",
    "napari-medgs fit t1.nii.gz t2.nii.gz --mask labels.nii.gz -o case.medgs.safetensors",
    "napari-medgs fit scan.nii.gz --from scan.medgs.safetensors -o scan.medgs.safetensors",
)
"""Shown at the end of the help page."""


@takes_groups(reading=Reading)
@takes_fit_params("freeze_geometry", "threads")
def fit(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="NIfTI, NRRD, MHA, MGZ or TIFF file, DICOM folder, folder of frames, or "
            "FILE.npz:SPLIT:INDEX of MedMNIST. Several are contrasts of one grid.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.medgs.safetensors",
            help="Where the field goes; a name in .medgs compresses it by the profile faithful.",
        ),
    ],
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="SEG.nii.gz",
            help="Label image on the same grid, fitted with the image; -1 marks unlabeled voxels.",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FIELD",
            help="Start from a field's Gaussians: an earlier fit or a checkpoint.",
            rich_help_panel=START,
        ),
    ] = None,
    *,
    params: FitParams,
    checkpoint_every: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Write the unfinished field to OUT every N steps; continue with --from OUT.",
            show_default="only at the end",
            rich_help_panel=RUNNING,
        ),
    ] = DEFAULTS.checkpoint_every,
    positions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Also save snapshots of the Gaussians' centers (x, y, t in voxels).",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    positions_every: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Steps between snapshots.", rich_help_panel=RUNNING),
    ] = 10,
    reading: Reading,
    deshear: DeshearOption = False,
    resample: ResampleOption = False,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit folded Gaussians to images and, if given, a mask.

    Ctrl-C ends the fit early and keeps what it has; a second one aborts.
    """
    del debug  # read by the command class
    if params.freeze_geometry and start is None:
        raise typer.BadParameter("--freeze-geometry needs --from FIELD.")
    if params.freeze_geometry:
        refuse_idle(OF_GEOMETRY, "with --freeze-geometry")
    if mask is None:
        refuse_idle(("--lambda-seg", "--empty-slices-unlabeled"), "without --mask")
    if positions is None:
        refuse_idle(("--positions-every",), "without --positions")
    params = replace(
        params,
        checkpoint=str(output) if checkpoint_every else None,
        checkpoint_every=checkpoint_every,
        positions_every=positions_every if positions else 0,
    )
    reporter = Reporter(quiet, json_file)
    check_output(output, SUFFIXES)
    if positions is not None:
        check_output(positions, (".npz",))
    extras = {"--json": json_file, "--positions": positions}
    check_distinct([*images, mask], {"-o": output, **extras})
    check_distinct([start], extras)  # the output may continue the field that it starts from

    from napari_medgs.data.shear import deshear as straighten
    from napari_medgs.data.shear import deshear_labels
    from napari_medgs.fitting import fit as run
    from napari_medgs.io import read_label_names, read_labels, read_volumes
    from napari_medgs.io.fields import load_field, save_field

    initial = None if start is None else load_field(start)
    with reporter.doing("reading"), naming(image=images):
        volume = read_volumes(images, **reading.options, resample=resample)
        labels = None if mask is None else read_labels(mask, volume.grid, resample=resample)[0]
        if deshear:
            if labels is not None:
                labels = deshear_labels(labels, volume.grid, outside=-1)[0]
            volume = straighten(volume)
    names = {} if mask is None else read_label_names(mask)
    with (
        naming(image=images, mask=mask, field=start),
        stoppable("the fit so far") as should_stop,
        reporter.progress() as progress,
    ):
        result = run(
            volume,
            params,
            labels,
            class_names=names,
            initial=initial,
            progress=progress,
            should_stop=should_stop,
        )
        compression = None
        tuned = not params.freeze_geometry and result.stopped_by != "cancelled"
        if is_compressed_field(output) and tuned:
            compression = _save_compressed(output, result, params, (volume, labels), progress)
        else:
            save_field(output, result.field)
        if positions is not None:
            save_positions(positions, result.positions)
    metrics = {
        **result.metrics,
        "seed": params.seed,
        "threads": params.threads,
        "output": str(output),
        "output_bytes": output.stat().st_size,
        "input_bytes": int(volume.data.nbytes),
        "shape": list(volume.shape),
        "spacing": list(volume.spacing),
    }
    if compression is not None:
        metrics["compression"] = compression
    reporter.finish(metrics)
    _print_summary(reporter, result, output, metrics)
    if "quality_missed" in metrics and result.stopped_by != "cancelled":
        print_error(metrics["quality_missed"])
    if result.stopped_by == "cancelled":
        print_error(f"canceled; {output} holds the last good result.")
        raise typer.Exit(CANCELLED)


def _save_compressed(
    output: Path, result: FitResult, params: FitParams, data: tuple[Any, Any], progress: Any
) -> dict[str, Any]:
    """Write a field compressed, tuned to what it was fitted to; return the numbers."""
    from napari_medgs.compression import CompressParams, compress

    wanted = CompressParams(profile="faithful", backend=params.backend, threads=params.threads)
    made = compress(result.field, wanted, *data, progress=progress)
    made.save(output)
    return made.metrics


def _print_summary(
    reporter: Reporter, result: FitResult, output: Path, metrics: dict[str, Any]
) -> None:
    ratio = metrics["input_bytes"] / metrics["bytes"]
    smaller = f", {ratio:.1f} x smaller than the image" if ratio >= 1 else ""
    rows: list[tuple[str, Any]] = [
        ("Gaussians", f"{metrics['n_gaussians']:,}"),
        ("size", f"{metrics['bytes'] / 2**20:.2f} MiB{smaller}"),
        ("PSNR", f"{metrics['psnr']:.2f} dB"),
        ("SSIM", f"{metrics['ssim']:.4f}"),
    ]
    if "psnr_heldout" in metrics:
        for name, key in (("fit", ""), ("linear", "_linear"), ("cubic", "_cubic")):
            psnr, ssim = (metrics[f"{metric}_heldout{key}"] for metric in ("psnr", "ssim"))
            rows.append((f"held-out slices, {name}", f"{psnr:.2f} dB, SSIM {ssim:.4f}"))
    classes = dict(zip(result.field.info.label_values, result.field.info.class_names))
    dice = metrics.get("dice", {})
    worst = sorted(dice, key=dice.__getitem__)[:MOST_LABELS]
    if len(dice) > 1:
        rows.append((f"mean Dice of {len(dice)} labels", f"{metrics['dice_mean']:.4f}"))
    for label in (label for label in dice if label in worst):
        rows.append((f"Dice of {classes.get(int(label), label)}", f"{dice[label]:.4f}"))
    if len(worst) < len(dice):
        rows.append(("", f"{len(dice) - len(worst)} more labels are above these"))
    if "compression" in metrics:
        numbers = metrics["compression"]
        after = f"{numbers['psnr']:.2f} dB" if "psnr" in numbers else ""
        text = f"{numbers['bytes']:,} bytes, {numbers['ratio']:.1f} x smaller, {after}"
        rows.append(("compressed", text.removesuffix(", ")))
    rows += [
        ("time", f"{metrics['seconds']:.1f} s on {metrics['backend']}"),
        ("stopped by", result.stopped_by),
    ]
    reporter.pairs(str(output), rows)
