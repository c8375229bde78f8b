"""The tasks themselves, one module for each kind. Importing this package registers them all."""

from fba_app.kinds import email, inference, pipeline, report, sleep

__all__ = ["email", "inference", "pipeline", "report", "sleep"]
