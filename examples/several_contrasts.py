"""Fit several contrasts at once

Contrasts on one grid become channels of one volume. The Gaussians share their centers and
covariances and carry one value per contrast, so that a second contrast costs little more than
its values. Here a T1-like and a T2-like image of the same head are fitted together.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
# In T2-weighted images fluid is bright and white matter darker than gray matter.
head = mg.make_phantom(spacing=4.0)
brightness = np.array([5.0, 60.0, 15.0, 220.0, 120.0, 80.0, 230.0, 190.0])
noise = np.random.default_rng(1).normal(0, 4, head.labels.shape)
t2 = (brightness[head.labels] + noise).astype(np.float32)
volume = mg.Volume(np.stack([head.image, t2]), head.grid, channel_names=("T1", "T2"))

# %%
params = mg.FitParams(gaussians=8000)
both = mg.fit(volume, params)
single = mg.fit(mg.Volume.from_array(head.image, affine=head.grid.affine), params)
print(f"T1 alone:   {single.metrics['bytes'] / 1000:.0f} kB")
print(f"T1 and T2:  {both.metrics['bytes'] / 1000:.0f} kB")
rendered = mg.render(both.field)
for c, name in enumerate(volume.channel_names):
    error = np.sqrt(np.mean((rendered[c] - volume.channel(c)) ** 2))
    print(f"{name}: root mean squared error {error:.1f} of {np.ptp(volume.channel(c)):.0f}")

# %%
index = volume.shape[0] // 2
fig, axes = plt.subplots(1, 4, figsize=(8, 2.9), layout="constrained")
for c, name in enumerate(volume.channel_names):
    axes[2 * c].imshow(volume.channel(c)[index], cmap="gray", vmin=0, vmax=230)
    axes[2 * c].set_title(name)
    axes[2 * c + 1].imshow(rendered[c, index], cmap="gray", vmin=0, vmax=230)
    axes[2 * c + 1].set_title(f"{name}, rendered")
for ax in axes:
    ax.axis("off")
fig.savefig(folder / "several_contrasts.png", dpi=100, bbox_inches="tight")
