"""Tasks: what is asked for, handed to the broker, run, and kept."""
