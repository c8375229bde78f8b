"""Tests against PostgreSQL, Redis and RabbitMQ."""
