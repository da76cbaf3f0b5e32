"""The watch: whether access ended on time. ``core`` judges; the other modules connect it to Kafka and the clock."""
