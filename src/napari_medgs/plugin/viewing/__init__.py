"""How an image is looked at: planes, window and level, surfaces, four views at once."""
