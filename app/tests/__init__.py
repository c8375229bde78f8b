"""Tests without a container: whatever would listen is either replaced or really not there."""
