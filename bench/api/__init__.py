"""Servers: requests a second and how long they take, of the deployed stack and of other ways to serve the same application."""
