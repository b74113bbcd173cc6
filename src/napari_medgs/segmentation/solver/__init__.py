"""Shortest paths on the graph of Gaussians, constraints, refinement on voxels."""
