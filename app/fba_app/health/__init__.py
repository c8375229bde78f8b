"""Whether the application lives, and its parts work."""
