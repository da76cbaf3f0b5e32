"""Reads stored evidence from ClickHouse or Kafka and verifies it in numbered steps: start with ``procedure``."""
