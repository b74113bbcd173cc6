"""What a compressed field is used for, beside the exact one: its rendering, strokes, meshes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from segmentation_cases import BACKGROUND, simulate_scribbles
from segmentation_measure import dice_of
from suite.registry import Context
from suite.results import Table

NEAREST = 12
"""Faces looked at for the nearest place of a surface, by their centers."""
SLICES, SEEDS = 3, 5
"""Slices with strokes, and how often they are drawn: one set of strokes is worth little."""
QUALITY = 36.0


@dataclass(frozen=True)
class Use:
    """An image with structures that are stroked and meshed.

    ``groups`` lists the label values of the mask that make up every class.
    """

    image: str
    mask: str
    groups: tuple[tuple[int, ...], ...]


USES = {
    "brain T1, 1 mm; lesions": Use(
        "mr_ms_lesions_patient07/T1.nii.gz",
        "mr_ms_lesions_patient07/lesions_gold.nii.gz",
        ((1,),),
    ),
    "abdominal CT, 3 mm; 5 organs": Use(
        "ct_totalseg_example/ct.nii.gz",
        "ct_totalseg_example/seg_ml.nii.gz",
        ((1,), (2,), (3,), (5,), (6,)),
    ),
    "glioma MR, 1 mm; tumor": Use(
        "mr_brats4_glioma/t1c.nii.gz", "mr_brats4_glioma/seg_brats23.nii.gz", ((1, 2, 3),)
    ),
    "spleen CT, 5 mm slices; spleen": Use(
        "ct_spleen_msd_crop/ct.nii.gz", "ct_spleen_msd_crop/seg.nii.gz", ((1,),)
    ),
    "hippocampus MR; 2 parts": Use(
        "hippocampus_msd/images/hippocampus_001.nii.gz",
        "hippocampus_msd/labels/hippocampus_001.nii.gz",
        ((1,), (2,)),
    ),
}
COLUMNS = (
    "image; classes",
    "bytes, exact",
    "bytes",
    "PSNR, exact",
    "PSNR",
    "SSIM, exact",
    "SSIM",
    "Dice of the field's classes, exact",
    "Dice",
    "Dice of strokes, exact",
    "Dice of strokes",
    "Dice of strokes, another fit",
    "volume of the mesh, exact (mL)",
    "volume (mL)",
    "mean distance of the meshes (mm)",
    "95 % (mm)",
)


def surface_distance(first: Any, second: Any) -> NDArray[np.float64]:
    """Return the distances of the vertices of either mesh to the other's surface.

    Parameters
    ----------
    first, second : trimesh.Trimesh
        Of about the same density: the nearest faces are found by their centers.
    """
    from scipy.spatial import cKDTree
    from trimesh.triangles import closest_point

    found = []
    for one, other in ((first, second), (second, first)):
        near = (
            cKDTree(other.triangles_center)
            .query(one.vertices, min(NEAREST, len(other.faces)))[1]
            .reshape(len(one.vertices), -1)
        )
        best = np.full(len(one.vertices), np.inf)
        for column in near.T:
            place = closest_point(other.triangles[column], one.vertices)
            best = np.minimum(best, np.linalg.norm(place - one.vertices, axis=1))
        found.append(best)
    return np.concatenate(found)


def mesh_numbers(exact: GaussianField, small: GaussianField, threads: int | None) -> list[float]:
    """Return volumes in mL before and after, mean and 95th percentile of the distances in mm."""
    from napari_medgs.meshing import mesh_from_field

    before, after = (mesh_from_field(field, threads=threads) for field in (exact, small))
    shared = [label for label in before if label in after]
    if not shared:
        return [float("nan")] * 4
    apart = np.concatenate([surface_distance(before[k], after[k]) for k in shared])
    volumes = [sum(float(m[k].volume) for k in shared) / 1000 for m in (before, after)]
    return [*volumes, float(apart.mean()), float(np.percentile(apart, 95))]


def stroke_dice(
    volume: Volume, truth: NDArray[np.uint8], field: GaussianField, seeds: range
) -> NDArray[np.float64]:
    """Return the mean Dice over the classes of segmentations that use a field, one a seed."""
    from napari_medgs.segmentation import Prompts, SegmentModel

    model, scores = SegmentModel(volume, field), []
    for seed in seeds:
        marks = simulate_scribbles(truth, volume.grid.coarsest_axis(), SLICES, seed)
        found = model.update(Prompts(labels=marks, background=BACKGROUND)).labels
        guess = np.where(found > BACKGROUND, found - BACKGROUND, 0)
        scores.append(float(np.mean(dice_of(guess, truth))))
    return np.array(scores)


def scaled_scores(field: GaussianField, truth: Floats, threads: int | None) -> tuple[float, float]:
    """Return PSNR and SSIM of a field's rendering."""
    from napari_medgs.rendering import render_stack
    from suite.compression_case import scores

    return scores(truth, render_stack(field, threads=threads)[0])


def use_row(name: str, context: Context) -> tuple[Any, ...]:
    """Fit and compress an image with its mask; return what both fields are worth."""
    from napari_medgs.compression import CompressParams, compress
    from napari_medgs.compression.problem import scaled_images
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.io import read_labels, read_volume

    use, threads = USES[name], context.threads
    volume = read_volume(context.file(use.image))
    given, _ = read_labels(context.file(use.mask), like=volume.grid)
    truth = np.zeros(volume.shape, np.uint8)
    for k, values in enumerate(use.groups):
        truth[np.isin(given, values)] = k + 1
    params = FitParams(quality=QUALITY, threads=threads, seed=context.seed)
    exact = fit(volume, params, truth).field
    steps = 10 if context.quick else None
    made = compress(exact, CompressParams(iterations=steps, threads=threads), volume, truth)
    image = scaled_images(exact, volume)[0]
    before, after = (scaled_scores(f, image, threads) for f in (exact, made.field))
    seeds = range(1 if context.quick else SEEDS)
    other = fit(volume, replace(params, seed=context.seed + 1), truth).field
    three = (exact, made.field, other)
    strokes = [float(stroke_dice(volume, truth, field, seeds).mean()) for field in three]
    volumes = mesh_numbers(exact, made.field, threads)
    metrics = made.metrics
    context.say(f"  {name}: strokes {strokes[0]:.4f} and {strokes[1]:.4f}")
    return (
        name,
        f"{exact.nbytes:,}",
        f"{len(made.data):,}",
        f"{before[0]:.2f}",
        f"{after[0]:.2f}",
        f"{before[1]:.3f}",
        f"{after[1]:.3f}",
        f"{metrics['dice_mean_before']:.4f}",
        f"{metrics['dice_mean']:.4f}",
        *(f"{score:.4f}" for score in strokes),
        *(f"{number:.2f}" for number in volumes[:2]),
        *(f"{number:.3f}" for number in volumes[2:]),
    )


def use_table(rows: list[tuple[Any, ...]]) -> Table:
    """Return the table of all images."""
    title = "Used instead of the exact field: rendered, stroked, meshed (profile small)"
    return Table(title, COLUMNS, tuple(rows))
