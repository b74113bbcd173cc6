"""Undo, redo, and logs that can be replayed."""
