"""The demo: fit a volume with its mask; render, mesh and evaluate the field."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.demo.cases import DemoCase
from napari_medgs.errors import Cancelled, FileError
from napari_medgs.fitting.params import FitParams

SCREENSHOT_SECONDS = 240
IMAGE = "image.nii.gz"


@dataclass
class DemoResult:
    """Results of the demo.

    Attributes
    ----------
    metrics : dict
        case, fit (see :class:`~napari_medgs.fitting.FitResult`), scores (see
        :func:`~napari_medgs.metrics.evaluate`), meshes, seconds of every stage.
    files : dict of str to Path
        Files written, by description.
    remarks : list of str
        Parts that were skipped, and why.
    """

    metrics: dict[str, Any]
    files: dict[str, Path]
    remarks: list[str]


def _check_folder(output: Path, case: DemoCase) -> None:
    """Refuse a folder with files of the user's that have the names of results."""
    from napari_medgs.demo.sample import holds

    # Written at the end; a demo that was interrupted has its image.
    if (output / "results.json").exists() or holds(output / IMAGE, case.volume.data[0]):
        return
    names = (IMAGE, "truth.nii.gz", "mask.nii.gz", "reconstruction.nii.gz", "mesh.ply")
    for name in names:
        if (output / name).exists():
            raise FileError(
                f"{output / name}: another file of this name is there; choose a new folder."
            )


def run_demo(
    case: DemoCase,
    output: Path,
    params: FitParams | None = None,
    *,
    gui: bool = True,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> DemoResult:
    """Run the whole example on a case and write everything into a folder.

    Parameters
    ----------
    case : DemoCase
    output : Path
        Made if absent; files of an earlier demo are replaced.
    params : FitParams, optional
    gui : bool
        Also start a napari viewer in another process and take a picture of it.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    DemoResult

    Raises
    ------
    Cancelled
        Between two stages, after ``should_stop`` said so; files made so far stay.
    MedGSError
        When a stage fails.
    """
    from napari_medgs.demo import pictures
    from napari_medgs.fitting import fit
    from napari_medgs.io import write_image, write_labels
    from napari_medgs.io.fields import save_field
    from napari_medgs.io.folders import make_folder
    from napari_medgs.io.json_files import write_json
    from napari_medgs.io.meshes import save_meshes
    from napari_medgs.io.splats import save_splat_ply
    from napari_medgs.meshing import mesh_from_field
    from napari_medgs.metrics import evaluate
    from napari_medgs.metrics.volumes import surface_areas_mm2
    from napari_medgs.rendering import render, render_labels

    params = params or FitParams()
    make_folder(output)
    _check_folder(output, case)
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    files: dict[str, Path] = {}
    remarks: list[str] = []
    stage_start = started

    def stage(name: str, following: str) -> None:
        nonlocal stage_start
        now = time.perf_counter()
        seconds[name] = now - stage_start
        stage_start = now
        if should_stop():
            raise Cancelled(f"Canceled after: {name}. {output} holds the results up to then.")
        progress(ProgressEvent(following, 0, 0, now - started))

    volume, grid = case.volume, case.volume.grid
    write_image(output / IMAGE, volume.data, grid)
    write_labels(output / "truth.nii.gz", case.labels, grid, case.names)
    files["image"], files["true mask"] = output / IMAGE, output / "truth.nii.gz"
    stage("write input", "fit")
    result = fit(
        volume,
        params,
        case.labels,
        class_names=case.names,
        progress=progress,
        should_stop=should_stop,
    )
    field = result.field
    files["field"] = save_field(output / "field.medgs.safetensors", field)
    stage("fit", "render")
    image = render(field, "image", backend=params.backend, threads=params.threads)
    labels = render_labels(field, backend=params.backend, threads=params.threads)
    stage("render", "write renderings")
    files["reconstruction"] = write_image(output / "reconstruction.nii.gz", image, grid)
    files["mask"] = write_labels(output / "mask.nii.gz", labels, grid, case.names)
    files["splats"] = output / "splats.ply"
    save_splat_ply(files["splats"], field)
    stage("write renderings", "surfaces")
    meshes = mesh_from_field(field, backend=params.backend, threads=params.threads)
    save_meshes(output / "mesh.ply", meshes, case.names)
    files["mesh"] = output / "mesh.ply"
    stage("surfaces", "evaluate")
    scores = evaluate(labels, case.labels, grid)
    stage("evaluate", "pictures")
    files["slices picture"] = pictures.draw_slices(
        output / "slices.png", case, image[0], labels, result.metrics
    )
    files["mesh picture"] = pictures.draw_meshes(output / "mesh.png", case, field, meshes)
    stage("pictures", "napari")
    if gui:
        picture, remark = take_screenshot(output / "napari.png", files)
        if picture is not None:
            files["viewer"] = picture
        if remark:
            remarks.append(remark)
        stage("napari", "done")
    areas = surface_areas_mm2(meshes)
    metrics = {
        "case": case.title,
        "shape": list(grid.shape),
        "spacing": list(grid.spacing),
        "fit": result.metrics,
        "scores": scores,
        "names": {str(value): name for value, name in case.names.items()},
        "meshes": {
            str(value): {
                "triangles": len(mesh.faces),
                "area_mm2": areas[value],
                "volume_ml": float(mesh.volume) / 1000,
            }
            for value, mesh in meshes.items()
        },
        "stages": seconds,
        "seconds": time.perf_counter() - started,
    }
    files["numbers"] = write_json(output / "results.json", metrics)
    return DemoResult(metrics, files, remarks)


def take_screenshot(output: Path, files: dict[str, Path]) -> tuple[Path | None, str]:
    """Show the demo's files in a napari viewer of another process and take a picture.

    A process of its own, as a viewer may abort it where OpenGL is broken. Without a display a
    virtual one is used if ``xvfb-run`` is installed.

    Returns
    -------
    picture : Path or None
    remark : str
        Why there is none.
    """
    script = [sys.executable, "-m", "napari_medgs.plugin.demo_view"]
    command = [*script, str(files["image"]), str(files["field"]), str(output)]
    has_display = sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if not has_display:
        virtual = shutil.which("xvfb-run")
        if virtual is None:
            return None, "No picture of the viewer: there is no display and no xvfb-run."
        screen = "-screen 0 1600x1000x24 +extension GLX"
        command = [virtual, "-a", "-s", screen, *command]
    output.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SCREENSHOT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"No picture of the viewer: {error}."
    if done.returncode or not output.is_file():
        lines = done.stderr.strip().splitlines() or ["the viewer ended without a message"]
        return None, f"No picture of the viewer: {lines[-1]}"
    return output, ""
