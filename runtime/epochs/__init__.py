"""New epochs: finds the stopped logs, plans how each goes on, and opens their next epochs."""
