"""Users, their roles, their sessions."""
