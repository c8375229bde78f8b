"""Playbooks: how long they take, of how many tasks they consist, and what they cost the controller."""
