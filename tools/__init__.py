"""What built the free assets once."""
