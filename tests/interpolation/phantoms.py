"""Images that tests of interpolation share."""

import numpy as np


def oblique_tubes(depth, seed=0, noise=0.02):
    """Return a tree of oblique tubes with noise (depth, 64, 64): what motion is good for."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:depth, :64, :64].astype(np.float32)
    image = np.zeros(z.shape, np.float32)
    for _ in range(12):
        cx, cy = rng.uniform(5, 59, 2)
        sx, sy = rng.uniform(-0.8, 0.8, 2)
        r = rng.uniform(3, 7)
        image += 0.4 / (1 + np.exp(2 * (np.hypot(x - cx - sx * z, y - cy - sy * z) - r)))
    return image + noise * rng.standard_normal(image.shape).astype(np.float32)
