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
head = mg.make_phantom(spacing=3.0)
tissue = head.labels
truth = np.select([tissue == 6, tissue == 7, np.isin(tissue, (4, 5))], [1, 2, 3], 0)
names = {1: "ventricles", 2: "lesion", 3: "brain tissue"}

# %%
# A stroke is a boolean mask, or a line through voxels (z, y, x). Label 0 is background.
z = 33
strokes = [
    (1, [(z, 29, 26), (z, 44, 26)]),
    (1, [(z, 29, 32), (z, 44, 33)]),
    (2, [(z, 24, 38), (z, 31, 40)]),
    (3, [(z, 18, 35), (z, 55, 45)]),
    (3, [(z, 20, 18), (z, 55, 14)]),
    (3, [(z, 36, 12), (z, 36, 21)]),
    (0, [(z, 36, 0), (z, 36, 7)]),
    (0, [(z, 36, 52), (z, 36, 58)]),
    (0, [(z, 1, 29), (z, 25, 29)]),
    (0, [(z, 50, 29), (z, 70, 29)]),
]
segmenter = mg.InteractiveSegmenter()
segmenter.set_image(head.image, affine=head.grid.affine)
for label, line in strokes:
    segmenter.add_scribble(label, line)
result = segmenter.result()

# %%
scores = mg.evaluate(result.labels, truth, head.grid)["labels"]
for value, name in names.items():
    score = scores[str(value)]
    print(
        f"{name:12s} {score['volume_ml']:7.1f} ml, truth {score['volume_ml_truth']:7.1f} ml, "
        f"Dice {score['dice']:.2f}"
    )
uncertainty = result.uncertainty()
wrong = result.labels != truth
print(f"wrong: {wrong.mean():.1%} of the voxels, estimated {uncertainty.mean():.1%}")
print(f"mean uncertainty where the label is wrong: {uncertainty[wrong].mean():.2f}")
print(f"mean uncertainty where it is correct:      {uncertainty[~wrong].mean():.2f}")

# %%
colors = {0: "white", 1: "deepskyblue", 2: "tomato", 3: "gold"}
fig, axes = plt.subplots(1, 4, figsize=(8, 2.8), layout="constrained")
titles = ("strokes", "result", "result, 12 mm lower", "uncertainty")
for ax, title, index in zip(axes, titles, (z, z, z - 4, z)):
    ax.imshow(head.image[index], cmap="gray", vmin=0, vmax=220)
    ax.set_title(title, fontsize=10)
    ax.axis("off")
for label, line in strokes:
    axes[0].plot(*np.array(line)[:, [2, 1]].T, color=colors[label], linewidth=2.5)
for ax, index in ((axes[1], z), (axes[2], z - 4)):
    for value in names:
        mask = result.labels[index] == value
        ax.contourf(mask, levels=[0.5, 1.5], colors=colors[value], alpha=0.6)
shown = axes[3].imshow(uncertainty[z], cmap="inferno", vmin=0, vmax=0.5)
fig.colorbar(shown, ax=axes[3], shrink=0.7)
fig.savefig(folder / "segment_strokes.png", dpi=100, bbox_inches="tight")
