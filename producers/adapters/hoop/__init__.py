"""hoop.dev: reviews and sessions."""
