"""What is computed once for an image and its field, before the first marker."""

from __future__ import annotations

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StageTimer
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.rendering import score_renderer
from napari_medgs.segmentation.params import SegmentParams, SegmentStage
from napari_medgs.segmentation.solver.geodesic import GraphSolver
from napari_medgs.segmentation.solver.propagation import MarkerPropagation
from napari_medgs.segmentation.solver.voxels import VoxelSolver
from napari_medgs.segmentation.terms.image_features import image_features


class SolverSetup:
    """All that depends on the image, the field and the advanced settings only.

    Parameters
    ----------
    volume : Volume
        Prepared.
    field : GaussianField
        On the volume's grid.
    params : SegmentParams
    timer : StageTimer

    Attributes
    ----------
    advanced : SolverParams
        The settings that it was made with.
    graph : GraphSolver
    propagation : MarkerPropagation
        On the graph.
    voxels : VoxelSolver
    """

    def __init__(
        self, volume: Volume, field: GaussianField, params: SegmentParams, timer: StageTimer
    ) -> None:
        self.advanced = params.advanced
        axes, axis = field.info.stack_axes, field.info.slice_axis
        timer.stage(SegmentStage.FEATURES)
        data = np.moveaxis(volume.data, axis + 1, 1)
        missing = None if volume.missing is None else np.moveaxis(volume.missing, axis + 1, 1)
        spacing = np.asarray(volume.spacing)[list(axes)]
        own = self.advanced
        features = image_features(data, spacing, own.features, missing, own.bias)
        timer.stage(SegmentStage.RENDERER)
        renderer = score_renderer(field)
        timer.stage(SegmentStage.GRAPH)
        self.graph = GraphSolver(field, features, renderer, params.seed, self.advanced)
        self.propagation = MarkerPropagation(self.graph)
        timer.stage(SegmentStage.MOTION)
        if self.graph.motion is not None:
            self.graph.motion.estimate(0)
        timer.stage(SegmentStage.BUFFERS)
        image = np.moveaxis(volume.channel(0), axis, 0)
        self.voxels = VoxelSolver(image, features, self.graph, self.advanced)
        self._weighed: tuple[tuple[float, ...], float] | None = (), np.inf

    def weigh(self, strengths: Floats | None, slice_distance: float = np.inf) -> None:
        """Let contrasts and slices count differently; what depends on them is made anew.

        Parameters
        ----------
        strengths : (C,) ndarray of float32 or None
            Of the contrasts in gradients; None where all count alike.
        slice_distance : float
            Most finest voxels that paths count between slices; as far as they are by default.
        """
        alike = strengths is None or (strengths == 1).all()
        key = () if strengths is None or alike else tuple(strengths.tolist()), slice_distance
        if key == self._weighed:
            return
        # Without it no quick update would start from the gradients of before.
        self.propagation.last = None
        self.voxels.forget()
        self._weighed = None  # until all is done: memory may not suffice
        features = self.graph.image.weighed(None if alike else strengths, slice_distance)
        self.graph.weigh(features)
        self.voxels.weigh(features)
        self._weighed = key
