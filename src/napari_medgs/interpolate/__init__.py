"""What lies between the slices: motion, frames and masks."""

from napari_medgs.interpolate.distance import shape_between
from napari_medgs.interpolate.flow import Flow, FlowParams, estimate_flow
from napari_medgs.interpolate.guard import GuardReport, interpolate_guarded, judge_motion
from napari_medgs.interpolate.labels import interpolate_labels, interpolate_probabilities
from napari_medgs.interpolate.motion import MotionParams, interpolate_stack
from napari_medgs.interpolate.plain import interpolate_plain

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
