"""Tasks that come again and again: kept in PostgreSQL, fired by beat."""
