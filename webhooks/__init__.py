"""The one signed HTTP sender that alerts and enforcers share."""
