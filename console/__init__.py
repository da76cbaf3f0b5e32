"""The read-only SQL way in."""
