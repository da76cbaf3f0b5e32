"""The ways out: ClickHouse and anchor targets."""
