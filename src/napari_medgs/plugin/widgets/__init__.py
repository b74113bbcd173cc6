"""What the dock widgets share: their base class, controls, layer choices and settings forms."""
