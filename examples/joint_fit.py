"""Fit an image and its mask together

Every Gaussian can carry class logits beside its intensity. One field then holds the image and
the mask, and both can be rendered on any grid: the softmax of the logits is a smooth
probability, whose most probable class is compared with the mask by the Dice coefficient.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=4.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)
params = mg.FitParams(gaussians=2500)
result = mg.fit(volume, params, mask=head.labels, class_names=head.names)
print(f"{len(result.field)} Gaussians, PSNR {result.metrics['psnr']:.1f} dB")

# %%
labels = mg.render_labels(result.field)
scores = mg.evaluate(labels, head.labels, head.grid)
for value, score in scores["labels"].items():
    print(f"{head.names[int(value)]:20s} Dice {score['dice']:.3f}")

# %%
# The probability of one class, on a grid of four times as many pixels per slice.
index = volume.shape[0] // 2
finer = head.grid.with_spacing((4.0, 1.0, 1.0))
white = mg.render(result.field, "probability", grid=finer)[5, index]

colors = ListedColormap(
    ["black", "#d8b48a", "#f2ead3", "#4c78a8", "#8c8c8c", "#ffffff", "#72b7b2", "#e45756"]
)
fig, axes = plt.subplots(1, 4, figsize=(8, 3.0), layout="constrained")
axes[0].imshow(head.image[index], cmap="gray", vmin=0, vmax=220)
axes[1].imshow(head.labels[index], cmap=colors, vmin=0, vmax=7, interpolation="nearest")
axes[2].imshow(labels[index], cmap=colors, vmin=0, vmax=7, interpolation="nearest")
axes[3].imshow(white, cmap="magma", vmin=0, vmax=1)
mean = scores["mean"]["dice"]
titles = ("image", "mask", f"rendered labels\nmean Dice {mean:.3f}", "white matter,\nprobability")
for ax, title in zip(axes, titles):
    ax.set_title(title, fontsize=10)
    ax.axis("off")
fig.savefig(folder / "joint_fit.png", dpi=100, bbox_inches="tight")
