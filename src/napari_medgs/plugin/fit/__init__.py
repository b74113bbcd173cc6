"""The Fit widget."""
