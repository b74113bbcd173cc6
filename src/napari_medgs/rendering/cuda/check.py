"""A GPU is trusted only after it has got a small problem right, once a process."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from napari_medgs.rendering.cuda.driver import available
from napari_medgs.rendering.cuda.engine import CudaEngine
from napari_medgs.rendering.engine import EngineFactory, EngineSpec, StackTarget
from napari_medgs.rendering.parameters import A2, B2, GEOMETRY, LOG_R1, LOG_R2, LOG_RT
from napari_medgs.rendering.reference import ReferenceEngine

SHAPE, IMAGES, CLASSES, COUNT = (5, 12, 20), 1, 2, 24
TOLERANCE = 5e-3


def deviation(make_engine: EngineFactory) -> float:
    """Return how far an engine's values, errors and gradient are from the reference's.

    Parameters
    ----------
    make_engine : callable
        From a spec to an engine.

    Returns
    -------
    float
        The largest relative deviation; infinite when something is not finite.
    """
    rng = np.random.default_rng(7)
    parameters = rng.normal(0, 0.3, (COUNT, GEOMETRY + IMAGES + CLASSES)).astype(np.float32)
    parameters[:, :3] = rng.uniform(0, SHAPE[::-1], (COUNT, 3))
    parameters[:, [LOG_R1, LOG_R2, LOG_RT]] -= 0.7
    parameters[:, [A2, A2 + 1, B2, B2 + 1]] *= 0.1
    labels = rng.integers(0, CLASSES, SHAPE).astype(np.uint8)
    weights = np.ones((IMAGES, SHAPE[0]), np.float32)
    target = StackTarget(
        rng.random((IMAGES, *SHAPE)).astype(np.float32),
        weights,
        labels,
        weights[0],
        CLASSES,
        scored=np.arange(SHAPE[0]) % 2 == 0,
    )
    background = np.array([0.2, 1.0, 0.0], np.float32)
    spec = EngineSpec(SHAPE, IMAGES + CLASSES, background, degree=3, cutoff=9.0, eps=1e-3)
    engines = [make_engine(spec), ReferenceEngine(spec)]
    ours, truth = (
        [e.render(parameters), *e.loss_and_gradient(parameters, target)] for e in engines
    )
    worst = 0.0
    for mine, right in zip(ours, truth, strict=True):
        error = np.linalg.norm(np.asarray(mine, np.float64) - right) / np.linalg.norm(right)
        worst = max(worst, float(error)) if np.isfinite(error) else np.inf
    return worst


@lru_cache(maxsize=1)
def check_gpu() -> tuple[bool, str]:
    """Return whether the GPU computes rightly here, and its name or the reason.

    Compiles the kernels the first time. Meant for choosing a backend automatically: whatever
    goes wrong is a reason, not an error.
    """
    works, reason = available()
    if not works:
        return works, reason
    try:
        found = deviation(CudaEngine)
    except Exception as error:  # a driver or compiler that fails: the CPU still works
        return False, f"the GPU failed its check: {type(error).__name__}: {error}"
    if found > TOLERANCE:
        return False, f"the GPU failed its check: results are off by {found:.1g}"
    return True, reason
