"""Click a part: the one below the mouse is outlined, the wheel changes its size."""
