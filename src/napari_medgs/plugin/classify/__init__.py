"""The Classify widget."""
