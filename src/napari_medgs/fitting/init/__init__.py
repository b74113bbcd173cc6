"""Where Gaussians start."""
