"""The stream: seal and anchor."""
