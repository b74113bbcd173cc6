"""Connected components, holes, interpolation between fully labeled slices."""
