"""The main job on real input: fit, mask, mesh, scores and pictures, in one go."""

from napari_medgs.demo.cases import DemoCase, choose_case
from napari_medgs.demo.run import DemoResult, run_demo

__all__ = ["DemoCase", "DemoResult", "choose_case", "run_demo"]
