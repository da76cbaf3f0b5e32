"""One module a tool: its records in, events out."""
