"""The networks, the body model and the pose prior."""
