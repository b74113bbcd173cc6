"""The Load widget."""
