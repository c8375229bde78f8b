"""The application's tests: unit/ needs no service, integration/ needs a running stack's."""
