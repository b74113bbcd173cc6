"""The overlay of Gaussians."""
