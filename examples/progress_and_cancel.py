"""Follow a fit and cancel it

Every long task takes two callbacks: ``progress`` receives what has been done so far, and
``should_stop`` says when to end. A fit that is canceled returns its last good field. In a
notebook the same callbacks drive a progress bar or a stop button; here they stop the fit as soon
as the image is good enough and draw how it got there.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt

import napari_medgs as mg

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()

# %%
head = mg.make_phantom(spacing=4.0)
volume = mg.Volume.from_array(head.image, affine=head.grid.affine)
curve = []  # step, PSNR, number of Gaussians


def progress(event):
    """Keep the state of the fit."""
    if event.psnr is not None and event.done and event.total > 1:
        curve.append((event.done, event.psnr, event.gaussians))


def good_enough():
    """Stop when ten steps with all Gaussians gained less than 0.6 dB."""
    if len(curve) < 40 or curve[-1][2] > curve[-11][2]:
        return False
    return curve[-1][1] - curve[-11][1] < 0.6


# %%
result = mg.fit(volume, progress=progress, should_stop=good_enough)
steps, quality, gaussians = zip(*curve)
print(f"stopped by: {result.stopped_by} after {result.metrics['iterations']} steps")
print(f"PSNR {result.metrics['psnr']:.1f} dB with {len(result.field)} Gaussians")

# %%
index = volume.shape[0] // 2
fig, (left, right) = plt.subplots(
    1, 2, figsize=(8, 3.2), width_ratios=(2, 1), layout="constrained"
)
left.plot(steps, quality, color="teal")
left.set(xlabel="step", ylabel="PSNR in dB")
count = left.twinx()
count.step(steps, gaussians, color="peru")
count.set_ylabel("Gaussians", color="peru")
left.spines.top.set_visible(False)
count.spines.top.set_visible(False)
right.imshow(mg.render(result.field)[0, index], cmap="gray", vmin=0, vmax=220)
right.set_title("when it was canceled", fontsize=10)
right.axis("off")
fig.savefig(folder / "progress_and_cancel.png", dpi=100, bbox_inches="tight")
