"""What holds the parts together: settings, the local stack, supervisor, metrics, logging."""
