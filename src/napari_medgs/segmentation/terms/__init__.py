"""The terms of the cost: image features, appearance, watershed, shape."""
