"""Pictures of a fit: slices beside their source and surfaces in space; dark, true to scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.demo.cases import DemoCase
from napari_medgs.io._atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from trimesh import Trimesh

    from napari_medgs.data.field import GaussianField

Image = NDArray[np.float32]

DARK, INK, FAINT = "#0d1117", "#e6edf3", "#8b949e"
PALETTE = (
    "#ff6b6b", "#4dd4ac", "#ffd166", "#74a9ff", "#c792ea", "#ff9f5a", "#5ce1e6", "#f78fb3",
)  # fmt: skip
PLANES = ("axial", "coronal", "sagittal")
MARGIN = 4  # voxels around what is cropped to


def label_colors(labels: Any) -> dict[int, str]:
    """Return a color for every label value."""
    return {int(v): PALETTE[k % len(PALETTE)] for k, v in enumerate(sorted(labels))}


def draw_slices(
    path: Path,
    case: DemoCase,
    image: Image,
    labels: NDArray[Any],
    metrics: dict[str, Any],
    planes: tuple[str, ...] = PLANES,
) -> Path:
    """Draw planes, one per row: source, reconstruction, error, mask with reference outline.

    Parameters
    ----------
    path : Path
        A ``.png`` file.
    case : DemoCase
    image : (Z, Y, X) ndarray
        The reconstruction of the first channel.
    labels : (Z, Y, X) ndarray
        The mask read from the field.
    metrics : dict
        Of the fit, for the title; its time is shown if it is there.
    planes : tuple of str
        Some of "axial", "coronal", "sagittal".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    source = case.volume.channel(0).astype(np.float32)
    low, high = (float(v) for v in np.percentile(source, (0.5, 99.5)))
    error = np.abs(np.clip(image, low, high) - np.clip(source, low, high))
    worst = max(float(np.percentile(error, 99.9)), 1e-6)
    box = _box(source > low + 0.04 * (high - low))
    where = _center(case.labels)
    colors = label_colors(case.names)
    sizes = np.array([s.stop - s.start for s in box]) * case.volume.spacing
    # Rows as high as their plane is in mm, columns as wide as the widest plane.
    shown = [PLANES.index(plane) for plane in planes]
    heights = [(sizes[1], sizes[0], sizes[0])[axis] for axis in shown]
    width = max((sizes[2], sizes[2], sizes[1])[axis] for axis in shown)
    scale = 3.1 / width
    left, right, top, bottom, gap = 0.35, 0.2, 1.05, 0.95, 0.12
    columns = (
        "source",
        "reconstruction",
        "absolute error",
        "mask from the field, reference outline",
    )
    figure_width = left + right + len(columns) * 3.1 + (len(columns) - 1) * gap
    figure_height = top + bottom + sum(heights) * scale + (len(shown) - 1) * gap
    figure = Figure(figsize=(figure_width, figure_height), facecolor=DARK, dpi=110)
    FigureCanvasAgg(figure)
    y = figure_height - top
    for row, axis in enumerate(shown):
        y -= heights[row] * scale
        for k, column in enumerate(columns):
            axes = figure.add_axes(
                (
                    (left + k * (3.1 + gap)) / figure_width,
                    y / figure_height,
                    3.1 / figure_width,
                    heights[row] * scale / figure_height,
                )
            )
            picture = {1: image, 2: error}.get(k, source)
            section = _section(picture, axis, where[axis], box)
            colormap, limits = ("magma", (0.0, worst)) if k == 2 else ("gray", (low, high))
            drawn = axes.imshow(
                section,
                cmap=colormap,
                vmin=limits[0],
                vmax=limits[1],
                aspect=_aspect(case.volume.spacing, axis),
                interpolation="nearest",
            )
            if k == 3:
                _fill(axes, _section(labels, axis, where[axis], box), colors)
                _outline(axes, _section(case.labels, axis, where[axis], box), colors)
            if row == 0:
                axes.set_title(column, color=INK, fontsize=12, pad=8)
            if k == 0:
                axes.set_ylabel(PLANES[axis], color=FAINT, fontsize=11)
            _bare(axes)
            if row == len(shown) - 1 and k in (1, 2):
                _colorbar(figure, drawn, axes, "intensity" if k == 1 else "error, intensity units")
        y -= gap
    _legend(figure, case, colors)
    facts = [f"{metrics['n_gaussians']:,} Gaussians", f"{metrics['psnr']:.1f} dB PSNR"]
    if "seconds_fit" in metrics:
        facts.append(f"{metrics['seconds_fit']:.1f} s on {metrics['backend']}")
    figure.text(
        left / figure_width,
        1 - 0.32 / figure_height,
        case.title,
        color=INK,
        fontsize=16,
        weight="bold",
        va="center",
    )
    figure.text(
        1 - right / figure_width,
        1 - 0.32 / figure_height,
        "   ".join(facts),
        color=FAINT,
        fontsize=12,
        ha="right",
        va="center",
    )
    return _save(figure, path)


def draw_meshes(
    path: Path, case: DemoCase, field: GaussianField, meshes: dict[int, Trimesh]
) -> Path:
    """Draw the surfaces from two sides, the case's transparent labels transparent.

    Parameters
    ----------
    path : Path
        A ``.png`` file.
    case : DemoCase
    field : GaussianField
        Gives the outline of the whole image, where the case wants one.
    meshes : dict of int to Trimesh
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from napari_medgs.demo.shading import Part, draw_parts

    colors = label_colors(case.names)
    parts = [Part(meshes[v], colors[v], transparent=False) for v in case.opaque if v in meshes]
    parts += [
        Part(meshes[v], colors[v], transparent=True) for v in case.transparent if v in meshes
    ]
    if case.skin:
        parts.append(Part(_skin(field), "#9fb8d9", transparent=True))
    figure = Figure(figsize=(12, 6.4), facecolor=DARK, dpi=110)
    FigureCanvasAgg(figure)
    for k, (azimuth, name) in enumerate(((35.0, "from the front left"), (125.0, "from behind"))):
        axes = figure.add_axes((0.01 + 0.495 * k, 0.07, 0.485, 0.83))
        picture, millimeters = draw_parts(parts, azimuth, 18.0, pixels=620)
        axes.imshow(picture, interpolation="lanczos")
        _bare(axes)
        axes.set_facecolor(DARK)
        axes.set_title(name, color=FAINT, fontsize=11)
        _scale_bar(axes, millimeters, picture.shape)
    drawn = [*case.opaque, *case.transparent]
    _legend(figure, case, {v: c for v, c in colors.items() if v in drawn})
    figure.text(0.02, 0.955, f"{case.title}: surfaces of the field, in mm", color=INK,
                fontsize=15, weight="bold", va="center")  # fmt: skip
    return _save(figure, path)


def _skin(field: GaussianField) -> Trimesh:
    """Return the outer surface of the whole image, coarse."""
    from skimage.filters import threshold_otsu

    from napari_medgs.meshing import MeshParams, mesh_from_image
    from napari_medgs.meshing.api import ISO_LABEL
    from napari_medgs.rendering import render

    grid = field.info.grid.with_spacing((2.0, 2.0, 2.0))
    image = render(field, "image", grid=grid)[0]
    level = 0.5 * float(threshold_otsu(image))
    params = MeshParams(level=level, smooth_mm=2.5, largest_only=True)
    return mesh_from_image(image, grid, params)[ISO_LABEL]


def _box(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the bounding box of the foreground, with a margin."""
    box = []
    for axis in range(3):
        # Single bright voxels in the background must not count.
        share = inside.mean(axis=tuple(a for a in range(3) if a != axis))
        hits = np.flatnonzero(share > 0.01)
        first, last = (hits[0], hits[-1] + 1) if len(hits) else (0, inside.shape[axis])
        box.append(slice(max(0, first - MARGIN), min(inside.shape[axis], last + MARGIN)))
    return (box[0], box[1], box[2])


def _center(labels: NDArray[Any]) -> list[int]:
    """Return, for every axis, the slice that shows the most of all labels, small ones too."""
    score = [np.zeros(n) for n in labels.shape]
    for value in np.unique(labels[labels > 0]):
        inside = labels == value
        for axis in range(3):
            count = inside.sum(axis=tuple(a for a in range(3) if a != axis))
            score[axis] += count / count.sum()
    return [int(s.argmax()) if s.any() else len(s) // 2 for s in score]


def _section(
    volume: NDArray[Any], axis: int, index: int, box: tuple[slice, slice, slice]
) -> NDArray[Any]:
    """Return a slice in radiological display: patient's left on the right, head up."""
    cropped = np.take(volume, index, axis=axis)[tuple(box[a] for a in range(3) if a != axis)]
    return cropped if axis == 0 else cropped[::-1]


def _aspect(spacing: tuple[float, float, float], axis: int) -> float:
    rows, columns = [spacing[a] for a in range(3) if a != axis]
    return rows / columns


def _fill(axes: Axes, labels: NDArray[Any], colors: dict[int, str]) -> None:
    import matplotlib.colors

    shade = np.zeros((*labels.shape, 4))
    for value, color in colors.items():
        shade[labels == value] = matplotlib.colors.to_rgba(color, 0.55)
    axes.imshow(shade, aspect=axes.get_aspect(), interpolation="nearest")


def _outline(axes: Axes, labels: NDArray[Any], colors: dict[int, str]) -> None:
    for value in colors:
        inside = (labels == value).astype(np.float32)
        if inside.any() and not inside.all():
            axes.contour(inside, levels=[0.5], colors=["white"], linewidths=0.6)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colorbar(figure: Any, drawn: Any, axes: Axes, label: str) -> None:
    place = axes.get_position()
    height = 0.11 / figure.get_figheight()
    bar = figure.add_axes(
        (place.x0 + 0.1 * place.width, place.y0 - 2.4 * height, 0.8 * place.width, height)
    )
    colorbar = figure.colorbar(drawn, cax=bar, orientation="horizontal")
    colorbar.outline.set_edgecolor(FAINT)
    bar.tick_params(colors=FAINT, labelsize=8, length=2)
    colorbar.set_label(label, color=FAINT, fontsize=9, labelpad=2)


def _legend(figure: Any, case: DemoCase, colors: dict[int, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=case.names[value]) for value, color in colors.items()]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(len(handles), 7),
        frameon=False,
        labelcolor=INK,
        fontsize=10,
        bbox_to_anchor=(0.5, 0.002),
        handlelength=1.0,
        handleheight=1.0,
    )


def _scale_bar(axes: Axes, millimeters: float, shape: tuple[int, ...]) -> None:
    """Draw 5 cm, or 1 cm where the whole is small."""
    length = 50 if millimeters * shape[1] > 120 else 10
    pixels = length / millimeters
    y, x = shape[0] * 0.965, shape[1] * 0.04
    axes.plot([x, x + pixels], [y, y], color=INK, linewidth=2.5, solid_capstyle="butt")
    axes.text(x, y - shape[0] * 0.02, f"{length // 10} cm", color=INK, fontsize=10)


def _save(figure: Any, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, facecolor=figure.get_facecolor())
    return path
