"""What the user marks, and the markers made of it."""
