"""Scissors: a line drawn on the canvas that cuts a class."""
