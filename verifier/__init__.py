"""Reads stored evidence, from ClickHouse or Kafka, and checks it step by step."""
