"""The ways out: the ClickHouse store with its views, anchor targets, and alerts."""
