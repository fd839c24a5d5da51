"""Archives inside a segment: their members sorted by what they are, each kind as a content of its own."""
