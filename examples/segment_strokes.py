"""Segment from a few strokes

Strokes in one slice segment a whole volume. The Gaussians are the nodes of a graph, and each
takes the class whose strokes are nearest by path cost over the image's edges and appearance. The
uncertainty is the estimated probability that a voxel's label is wrong; it is compared here with
the errors that are really there.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
# To be found: ventricles (1) and lesion (2) of a synthetic head; all else is background (0).
head = mg.make_phantom(spacing=3.0)
truth = np.select([head.labels == 6, head.labels == 7], [1, 2], 0)
segmenter = mg.InteractiveSegmenter()
segmenter.set_image(head.image, affine=head.grid.affine)

# %%
# A stroke is a boolean mask, or a line through voxels (z, y, x).
z = 33
strokes = [
    (1, [(z, 29, 26), (z, 44, 26)]),
    (1, [(z, 29, 32), (z, 44, 33)]),
    (2, [(z, 25, 39), (z, 30, 40)]),
    (0, [(z, 36, 1), (z, 36, 21)]),
    (0, [(z, 10, 29), (z, 60, 29)]),
    (0, [(z, 18, 35), (z, 55, 45)]),
]
for label, line in strokes:
    segmenter.add_scribble(label, line)
result = segmenter.result()

# %%
scores = mg.evaluate(result.labels, truth, head.grid)["labels"]
for value, name in ((1, "ventricles"), (2, "lesion")):
    print(
        f"{name}: {result.volumes_ml[value]:.1f} ml, truth "
        f"{scores[str(value)]['volume_ml_truth']:.1f} ml, Dice {scores[str(value)]['dice']:.3f}"
    )
uncertainty = result.uncertainty()
wrong = result.labels != truth
print(f"mean uncertainty of wrong voxels:   {uncertainty[wrong].mean():.3f}")
print(f"mean uncertainty of correct voxels: {uncertainty[~wrong].mean():.3f}")

# %%
colors = {0: "white", 1: "deepskyblue", 2: "tomato"}
fig, axes = plt.subplots(1, 4, figsize=(8, 2.8), layout="constrained")
titles = ("strokes", "result", f"result, {z - 31} slices lower", "uncertainty")
for ax, title, index in zip(axes, titles, (z, z, 31, z)):
    ax.imshow(head.image[index], cmap="gray", vmin=0, vmax=220)
    ax.set_title(title, fontsize=10)
    ax.axis("off")
for label, line in strokes:
    axes[0].plot(*np.array(line)[:, [2, 1]].T, color=colors[label], linewidth=2.5)
for ax, index in ((axes[1], z), (axes[2], 31)):
    for value in (1, 2):
        mask = result.labels[index] == value
        if mask.any():
            ax.contour(mask, levels=[0.5], colors=colors[value], linewidths=1.3)
shown = axes[3].imshow(uncertainty[z], cmap="inferno", vmin=0, vmax=0.5)
fig.colorbar(shown, ax=axes[3], shrink=0.7)
fig.savefig(folder / "segment_strokes.png", dpi=100, bbox_inches="tight")
