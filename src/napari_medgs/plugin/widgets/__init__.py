"""The dock widgets: Load, Fit Gaussians, Gaussians overlay and Export."""
