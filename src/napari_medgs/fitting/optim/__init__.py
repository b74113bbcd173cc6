"""Adam and the optimization loops."""
