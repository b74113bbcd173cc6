"""Train and use a small classifier

Images of balls and of rods are told apart by a small network. Every image is fitted with 32
Gaussians first, and the network sees these Gaussians and no pixels; those of the object are drawn
as ellipses. A trained classifier is one file, whose card records data, settings and scores.
"""

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse

import napari_medgs as mg
from napari_medgs.classification import (
    TrainParams,
    load_classifier,
    load_dataset,
    save_classifier,
    train,
)

folder = Path(sys.argv[1]) if sys.argv[1:2] and not hasattr(sys, "ps1") else Path()
names = ("ball", "rod")

# %%
# 72 images of random position, direction and brightness, in the file layout of MedMNIST.
rng = np.random.default_rng(0)
labels = np.arange(72) % 2
images = np.empty((72, 28, 28), np.uint8)
y, x = np.mgrid[:28, :28] - 13.5
for image, label in zip(images, labels):
    angle, (row, column) = rng.uniform(0, np.pi), rng.uniform(-4, 4, 2)
    along = (x - column) * np.cos(angle) + (y - row) * np.sin(angle)
    across = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
    length, width = ((5, 5), (9, 2.8))[label]
    edge = 1 / (1 + np.exp(8 * (np.hypot(along / length, across / width) - 1)))
    image[:] = rng.normal(30, 5, image.shape) + rng.uniform(80, 180) * edge
arrays = {"train_images": images[:48], "train_labels": labels[:48, None]}
arrays |= {"test_images": images[48:], "test_labels": labels[48:, None]}
np.savez(folder / "shapes.npz", **arrays)

# %%
params = TrainParams(
    gaussians=32, epochs=12, batch_size=8, ema=0.9, accelerator="cpu", cache_dir=""
)
result = train(load_dataset(folder / "shapes.npz"), params)
print(f"test accuracy {result.metrics['test_acc']:.2f}, AUC {result.metrics['test_auc']:.3f}")
path = save_classifier(folder / "shapes.safetensors", result.classifier)

# %%
# A prediction holds the field that the network has read.
classifier = load_classifier(path)
fig, axes = plt.subplots(1, 5, figsize=(8, 2.2), layout="constrained")
for ax, number in zip(axes, range(48, 53)):
    prediction = classifier.predict(mg.Volume.from_array(images[number]))
    probability = max(prediction.probabilities.values())
    name = names[list(prediction.probabilities.values()).index(probability)]
    print(f"image {number}, a {names[labels[number]]}: {name} with probability {probability:.2f}")
    ax.imshow(images[number], cmap="gray", vmin=0, vmax=220, interpolation="nearest")
    field = prediction.field
    field = field.subset(field.values[:, 0] > 0.25)  # those of the object
    for (_, row, column), covariance in zip(field.voxel_centers(), field.voxel_covariances()):
        squares, axis = np.linalg.eigh(covariance[1:, 1:])
        turn = np.degrees(np.arctan2(axis[0, 1], axis[1, 1]))
        size = 2 * np.sqrt(squares)
        ax.add_patch(Ellipse((column, row), size[1], size[0], angle=turn, fill=False, ec="gold"))
    ax.set_title(f"{name}, {probability:.2f}", fontsize=10)
    ax.axis("off")
fig.savefig(folder / "classify_shapes.png", dpi=90, bbox_inches="tight")
