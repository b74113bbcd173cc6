"""What lies between the slices: motion, frames and masks."""

from napari_medgs.interpolation.baselines import interpolate_plain
from napari_medgs.interpolation.flow import Flow, FlowParams, estimate_flow
from napari_medgs.interpolation.labels import interpolate_labels, interpolate_probabilities
from napari_medgs.interpolation.motion import MotionParams, interpolate_stack
from napari_medgs.interpolation.selection import GuardReport, interpolate_guarded, judge_motion
from napari_medgs.interpolation.signed_distance import shape_between

__all__ = [
    "Flow",
    "FlowParams",
    "GuardReport",
    "MotionParams",
    "estimate_flow",
    "interpolate_guarded",
    "interpolate_labels",
    "interpolate_plain",
    "interpolate_probabilities",
    "interpolate_stack",
    "judge_motion",
    "shape_between",
]
