"""The CUDA engine: kernels compiled at run time."""
