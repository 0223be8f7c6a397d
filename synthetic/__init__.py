"""The free body, its motions and worlds, and the renderer's streams."""
