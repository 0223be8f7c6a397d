"""One's own video: decoding, 2D joints, who is followed, what is written."""
