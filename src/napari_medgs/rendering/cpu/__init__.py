"""The CPU engine: compiled kernels on plain threads."""
