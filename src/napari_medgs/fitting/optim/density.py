"""Where a rendering errs: the density by which new Gaussians are placed."""

from __future__ import annotations

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.rendering.cpu.residual import add_label_errors
from napari_medgs.rendering.engine import Engine, SliceVisitor, StackTarget

FEW_SLICES = 16  # would not keep all threads busy


def error_density(
    engine: Engine, parameters: Floats, target: StackTarget, threads: int | None = None
) -> Floats:
    """Return the squared error, plus wrong class mass, per voxel (Z, Y, X).

    Parameters
    ----------
    engine : Engine
    parameters : (N, 14 + C) ndarray of float32
    target : StackTarget
    threads : int, optional
        CPU threads; all by default.
    """
    active = np.flatnonzero(target.active)
    density = np.zeros(engine.spec.shape, np.float32)
    images = len(target.images)

    def add(z: int, rendered: Floats) -> None:
        for channel in range(images):
            error = rendered[channel] - target.images[channel, z]
            error *= error
            density[z] += error * target.image_weights[channel, z]
        if target.classes:
            add_label_errors(
                rendered[images:], target.labels[z], target.seg_weights[z], density[z]
            )

    if isinstance(engine, SliceVisitor) and len(active) >= FEW_SLICES:
        engine.visit_slices(parameters, active, add)
    else:
        whole = engine.render(parameters, active)
        run_chunks(lambda k: add(int(active[k]), whole[:, k]), len(active), threads)
    return density
