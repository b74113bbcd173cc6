"""The coder of compressed fields: integers to bytes and back, nothing about fitting."""
