"""Sections of `[training]` that are methods of their own: exits, contrast, low-cost adaptation."""
