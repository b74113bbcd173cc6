"""One user on one image: undo, redo, replay."""
