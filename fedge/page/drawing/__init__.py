"""Charts: marks, specifications, and two ways to draw them."""
