"""The Discover widget: tissues, parts, and the map of the parts."""
