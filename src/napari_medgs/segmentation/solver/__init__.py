"""Shortest paths over the graph of Gaussians, refinement at voxels."""
