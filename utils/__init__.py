"""What several rooms need; imports nothing of the project but itself."""
