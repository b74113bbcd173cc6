"""Gaussians drawn over the image: exact cross-sections in slices, bent ellipsoids in 3D."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.errors import ParameterError
from napari_medgs.plugin.layer_frame import LayerFrame, geometry_kwargs, slice_position
from napari_medgs.plugin.layer_metadata import unwrap
from napari_medgs.plugin.overlay.colors import (
    ColorBy,
    gaussian_colors,
    is_background,
    strengths,
)
from napari_medgs.rendering import sections, tissue_threshold

# (radius, opacity) of the rings of a section: a faint disc with a clear rim.
RINGS = ((0.0, 0.16), (0.82, 0.22), (0.86, 1.0), (1.0, 1.0))
SEGMENTS = ((1000, 28), (4000, 16), (1_000_000_000, 10))


@dataclass(frozen=True)
class OverlayStyle:
    """How Gaussians are drawn.

    Attributes
    ----------
    color_by : {"intensity", "class", "error", "score"}
    sigmas : float
        Size in standard deviations.
    opacity : float
        0 to 1.
    colormap : str
        napari colormap for intensity, error and score.
    hide_background : bool
        Leave out Gaussians of background class or darkness, or of scores next to zero.
    most_sections, most_ellipsoids : int
        Only so many of the largest are drawn in a slice, in space.
    threshold : float, optional
        With ``hide_background``: what is darker is left out in space, so that air and bed do not
        hide the anatomy. By default Otsu's threshold of the Gaussians' intensities.
    clip_axis : int, optional
        Only a slab across this axis of the canonical grid (z, y, x) is drawn in space.
    clip : (float, float)
        Where the slab begins and ends, in millimeters from the first voxel.
    """

    color_by: ColorBy = "intensity"
    sigmas: float = 1.0
    opacity: float = 0.8
    colormap: str = "turbo"
    hide_background: bool = True
    most_sections: int = 12_000
    most_ellipsoids: int = 5_000
    threshold: float | None = None
    clip_axis: int | None = None
    clip: tuple[float, float] = (0.0, np.inf)

    def __post_init__(self) -> None:
        if not 0 < self.sigmas <= 10:
            raise ParameterError(f"The size must be above 0 and at most 10, not {self.sigmas}.")
        if not 0 <= self.opacity <= 1:
            raise ParameterError(f"The opacity must be 0 to 1, not {self.opacity}.")
        if min(self.most_sections, self.most_ellipsoids) < 1:
            raise ParameterError("At least one Gaussian must be drawn.")
        if self.clip_axis not in (None, 0, 1, 2):
            raise ParameterError(f"The axis to clip along must be 0 to 2, not {self.clip_axis}.")
        if not self.clip[0] <= self.clip[1]:
            raise ParameterError(f"The slab must begin before it ends, not {self.clip}.")


class GaussianOverlay:
    """A Surface layer that shows a field in the visible slice or in 3D.

    The overlay lives as long as its layer; it holds no viewer.

    Parameters
    ----------
    viewer : napari.Viewer or napari.components.ViewerModel
    field : GaussianField
    frame : LayerFrame
        Of the layer that ``like`` is.
    like : napari.layers.Layer
        Gives place, units and axis labels.
    style : OverlayStyle, optional
    errors : (N,) ndarray, optional
        Absolute errors at the Gaussians.
    scores : (N,) ndarray, optional
        Values of either sign, one per Gaussian.
    limits : (float, float), optional
        Intensities of the colormap's ends; the contrast limits of ``like`` if it has some.
    name : str
    """

    def __init__(
        self,
        viewer: Any,
        field: GaussianField,
        frame: LayerFrame,
        like: Any,
        style: OverlayStyle | None = None,
        *,
        errors: NDArray[Any] | None = None,
        scores: NDArray[Any] | None = None,
        limits: tuple[float, float] | None = None,
        name: str = "Gaussians",
    ) -> None:
        from napari.layers import Surface

        viewer = unwrap(viewer)
        self.field, self.frame = field, frame
        self.style = style or OverlayStyle()
        self.errors, self.scores = errors, scores
        self.limits = limits or getattr(like, "contrast_limits", None)
        self.summary = ""
        self.shown = 0
        self._dims = viewer.dims
        self._precisions: NDArray[np.float64] | None = None
        self._tissue: float | None = None
        self._in_space: NDArray[np.bool_] | None = None
        self._prepare()
        vertices, faces, colors = self._nothing()
        layer = Surface(
            (vertices, faces),
            vertex_colors=colors,
            shading="none",
            opacity=self.style.opacity,
            blending="translucent_no_depth",
            name=name,
            **geometry_kwargs(like),
        )
        self._layer = weakref.ref(layer)
        _OVERLAYS[layer] = self
        self.refresh()
        viewer.add_layer(layer)
        for emitter in (self._dims.events.current_step, self._dims.events.order):
            emitter.connect(self._follow)
        self._dims.events.ndisplay.connect(self._follow)
        layer.events.visible.connect(self._follow)
        # Adding a layer can change the number of dimensions, and so where the slice is.
        self.refresh()

    @property
    def layer(self) -> Any:
        """The Surface layer, or None once it is gone."""
        return self._layer()

    def restyle(self, **changes: Any) -> None:
        """Change some of the style and draw again.

        Raises
        ------
        ParameterError
            When a value is out of range or the coloring is not possible; nothing changes then.
        """
        style = replace(self.style, **changes)
        before, self.style = self.style, style
        try:
            self._prepare()
        except ParameterError:
            self.style = before
            raise
        layer = self.layer
        if layer is not None:
            layer.opacity = style.opacity
        if set(changes) != {"opacity"}:
            self.refresh()

    def _prepare(self) -> None:
        style = self.style
        limits = (self.limits[0], self.limits[1]) if self.limits is not None else None
        self._colors = gaussian_colors(
            self.field, style.color_by, style.colormap, self.errors, limits, self.scores
        )
        self._strengths = strengths(self.field, style.color_by, self.scores)
        self._in_space = None
        self._visible = np.ones(len(self.field), dtype=bool)
        if style.hide_background:
            self._visible = ~is_background(self.field, style.color_by, self.scores)

    @property
    def tissue(self) -> float:
        """The intensity below which Gaussians are taken for air, in units of the image."""
        if self._tissue is None:
            self._tissue = tissue_threshold(self.field)
        return self._tissue

    @property
    def extent(self) -> tuple[float, float, float]:
        """Millimeters from the first to the last voxel along z, y, x."""
        grid = self.frame.grid
        z, y, x = ((n - 1) * s for n, s in zip(grid.shape, grid.spacing, strict=True))
        return z, y, x

    def _slab(self) -> tuple[float, float]:
        """Return the voxels at which the slab begins and ends."""
        assert self.style.clip_axis is not None
        spacing = self.frame.grid.spacing[self.style.clip_axis]
        return self.style.clip[0] / spacing, self.style.clip[1] / spacing

    def _visible_in_space(self) -> NDArray[np.bool_]:
        style = self.style
        if self._in_space is None:
            shown = np.ones(len(self.field), dtype=bool)
            if style.hide_background:
                least = self.tissue if style.threshold is None else style.threshold
                shown = ~is_background(self.field, style.color_by, self.scores, least)
            if style.clip_axis is not None:
                low, high = self._slab()
                place = self.field.voxel_centers()[:, style.clip_axis]
                shown &= (place >= low) & (place <= high)
            self._in_space = shown
        return self._in_space

    def _follow(self, event: Any = None) -> None:
        layer = self.layer
        if layer is not None and layer.visible:
            self.refresh()

    def refresh(self) -> None:
        """Draw the visible slice's cross-sections, or the ellipsoids in 3D."""
        layer = self.layer
        if layer is None:
            return
        in_space = self._dims.ndisplay == 3 and self.frame.ndim == 3
        mesh = self._ellipsoids() if in_space else self._sections(layer)
        if mesh is None:
            mesh = self._nothing()
        set_mesh(layer, *mesh)
        wanted = ("translucent", "smooth") if in_space else ("translucent_no_depth", "none")
        if (str(layer.blending), str(layer.shading)) != wanted:
            layer.blending, layer.shading = wanted

    def _nothing(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return an invisible triangle: napari cannot place a surface without any."""
        middle = (np.asarray(self.frame.grid.shape) - 1) / 2
        vertices = np.repeat(self.frame.points_to_layer(middle[None]), 3, axis=0)
        colors = np.zeros((3, 4), dtype=np.float32)
        return vertices.astype(np.float32), np.array([[0, 1, 2]], dtype=np.int32), colors

    def _place(self, points: NDArray[Any]) -> NDArray[np.float32]:
        """Clip canonical points to the image, whose extent must not grow; to layer axes."""
        last = np.asarray(self.frame.grid.shape) - 1
        return self.frame.points_to_layer(np.clip(points, 0, last)).astype(np.float32)

    def _slice(self, layer: Any) -> tuple[int, float] | None:
        """Return the canonical axis and voxel position of the viewer's slice."""
        if self.frame.ndim == 2:
            return 0, 0.0
        offset = self._dims.ndim - 3
        hidden = [a - offset for a in self._dims.not_displayed if a >= offset]
        if len(hidden) != 1:
            return None
        position = float(np.round(slice_position(self._dims, layer, hidden[0])))
        axis = self.frame.canonical_axis(hidden[0])
        return axis, self.frame.canonical_position(axis, position)

    def _sections(self, layer: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        where = self._slice(layer)
        self.shown = 0
        if where is None:
            self.summary = "Show two axes of the image to see sections."
            return None
        axis, position = where
        if axis != self.field.info.slice_axis and self._precisions is None:
            self._precisions = self.field.voxel_precisions()
        found = sections.cut(self.field, axis, position, self.style.sigmas, self._precisions)
        found = found.subset(self._visible[found.index])
        total = len(found)
        if total > self.style.most_sections:
            keep = total - self.style.most_sections
            found = found.subset(np.sort(np.argpartition(found.area(), keep)[keep:]))
        self.shown = len(found)
        self.summary = _counted(self.shown, total, "sections in this slice")
        if not self.shown:
            return None
        segments = next(s for limit, s in SEGMENTS if self.shown <= limit)
        radii = tuple(radius for radius, _ in RINGS[1:])
        flat, faces = sections.disc_mesh(found, segments, radii)
        points = np.insert(flat.astype(np.float64), axis, position, axis=1)
        alpha = np.repeat([a for _, a in RINGS], [1, *[segments] * len(radii)])
        colors = np.empty((self.shown, len(alpha), 4), dtype=np.float32)
        colors[..., :3] = self._colors[found.index][:, None]
        colors[..., 3] = alpha * self._strengths[found.index][:, None]
        return self._place(points), faces, colors.reshape(-1, 4)

    def _ellipsoids(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        visible = np.flatnonzero(self._visible_in_space())
        some = self.field.subset(visible)
        chosen = visible[sections.largest(some, self.style.most_ellipsoids)]
        self.shown = len(chosen)
        self.summary = _counted(self.shown, len(visible), "Gaussians")
        if not self.shown:
            return None
        points, faces = sections.surfaces(self.field, chosen, self.style.sigmas)
        if self.style.clip_axis is not None:  # cut flat at the ends of the slab
            ends = self._slab()
            np.clip(points[:, self.style.clip_axis], *ends, out=points[:, self.style.clip_axis])
        colors = np.ones((len(points), 4), dtype=np.float32)
        colors[:, :3] = np.repeat(self._colors[chosen], len(points) // self.shown, axis=0)
        return self._place(points), faces, colors


def _counted(shown: int, total: int, what: str) -> str:
    if shown < total:
        return f"the largest {shown:,} of {total:,} {what}"
    return f"{shown:,} {what}"


def set_mesh(
    layer: Any, vertices: NDArray[Any], faces: NDArray[Any], colors: NDArray[np.float32]
) -> None:
    """Replace the mesh and vertex colors of a Surface layer, whatever their number was."""
    # napari slices with the old colors when only the data change: they must go first.
    with layer.events.blocker_all():
        layer.vertex_colors = None
        layer.data = (vertices, faces)
    layer.vertex_colors = colors


_OVERLAYS: weakref.WeakKeyDictionary[Any, GaussianOverlay] = weakref.WeakKeyDictionary()


def overlay_of(layer: Any) -> GaussianOverlay | None:
    """Return the overlay that draws a Surface layer, if one does."""
    try:
        return _OVERLAYS.get(unwrap(layer))
    except TypeError:  # not hashable, so no layer
        return None


def find_overlay(layers: Any, field: GaussianField) -> GaussianOverlay | None:
    """Return the overlay of a field among the layers of a viewer."""
    for layer in layers:
        overlay = overlay_of(layer)
        if overlay is not None and overlay.field is field:
            return overlay
    return None
