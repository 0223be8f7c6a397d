"""Data sets as streams of cropped frames: they read, and never render."""
