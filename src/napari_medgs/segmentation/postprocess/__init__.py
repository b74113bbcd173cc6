"""Connected components, holes, fully labeled slices."""
