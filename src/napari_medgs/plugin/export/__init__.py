"""The Export widget."""
