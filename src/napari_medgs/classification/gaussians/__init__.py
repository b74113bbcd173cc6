"""Sets of Gaussians and their rasters."""
