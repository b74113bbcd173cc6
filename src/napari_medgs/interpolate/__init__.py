"""What lies between the slices: motion, frames and masks."""
