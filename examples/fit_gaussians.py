"""Fit Gaussians to a volume

A field of folded Gaussians is fitted to a volume by gradient descent, and rendered back on the
volume's grid. Few Gaussians give a smooth image, more of them the fine structures. The error is
what the field leaves out: mostly noise, which has no structure that a Gaussian could follow.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=3.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)

# %%
# Without a number of Gaussians it is chosen by the size of the foreground and its detail.
coarse = mg.fit(volume, mg.FitParams(gaussians=1500))
fine = mg.fit(volume)
print(f"image: {volume.data.nbytes / 1000:.0f} kB")
for name, result in (("coarse", coarse), ("fine", fine)):
    metrics = result.metrics
    print(
        f"{name}: {metrics['n_gaussians']} Gaussians, {metrics['bytes'] / 1000:.0f} kB, "
        f"PSNR {metrics['psnr']:.1f} dB, SSIM {metrics['ssim']:.3f}"
    )

# %%
# ``render`` returns the original units, with the channel as the first axis.
index = volume.shape[0] // 2
image = volume.channel(0)[index]
pictures = {"image": image}
for result in (coarse, fine):
    rendered = mg.render(result.field)[0, index]
    pictures[f"{len(result.field):,} Gaussians\nPSNR {result.metrics['psnr']:.1f} dB"] = rendered
error = image - rendered

fig, axes = plt.subplots(1, 4, figsize=(8, 2.9), layout="constrained")
for ax, (title, picture) in zip(axes, pictures.items()):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=220)
    ax.set_title(title, fontsize=10)
shown = axes[3].imshow(error, cmap="RdBu_r", vmin=-40, vmax=40)
axes[3].set_title("error of the\nfine field", fontsize=10)
fig.colorbar(shown, ax=axes[3], shrink=0.7)
for ax in axes:
    ax.axis("off")
fig.savefig(folder / "fit_gaussians.png", dpi=100, bbox_inches="tight")
