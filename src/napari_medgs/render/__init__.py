"""Render fields on grids, as labels and at points, with the backend of choice."""
