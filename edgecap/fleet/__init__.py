"""What the fleet operator sees."""
