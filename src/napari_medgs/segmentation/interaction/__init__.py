"""What an interactive segmenter does, one module an idea."""
