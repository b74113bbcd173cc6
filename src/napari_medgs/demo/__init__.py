"""A whole example: fit, mask, mesh, scores and pictures of one volume; sample files."""

from napari_medgs.demo.cases import DemoCase, choose_case
from napari_medgs.demo.run import DemoResult, run_demo

__all__ = ["DemoCase", "DemoResult", "choose_case", "run_demo"]
