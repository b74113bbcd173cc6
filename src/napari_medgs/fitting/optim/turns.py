"""Labels of many classes, seen in turns: rendering the classes is most of the work of a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import FitProblem
from napari_medgs.rendering.api import MANY_CLASSES
from napari_medgs.rendering.engine import StackTarget

LEAST_SEEN = 4  # labeled slices in a step that sees some of them


def label_turns(problem: FitProblem, params: FitParams) -> int:
    """Return in how many turns labels are seen; 1 where each step sees all of them."""
    if len(problem.info.class_names) <= MANY_CLASSES or params.quality is not None:
        return 1
    # Where few slices are labeled these are farther apart already.
    labeled = int(np.count_nonzero(problem.target.seg_weights))
    turns = round(params.advanced.optimizer.label_turns * labeled / problem.shape[0])
    return max(1, min(turns, labeled // LEAST_SEEN))


def target_of_turn(target: StackTarget, turns: int, iteration: int) -> tuple[StackTarget, float]:
    """Return the target of a step, and the share of the labeled slices in it.

    Slices that are seen in turns weigh more; a Gaussian reaches several of them.
    """
    if turns == 1:
        return target, 1.0
    weights = target.seg_weights
    labeled = np.flatnonzero(weights)
    seen = labeled[iteration % turns :: turns]
    some = np.zeros_like(weights)
    some[seen] = weights[seen] * np.float32(turns)
    return replace(target, seg_weights=some), len(seen) / len(labeled)
