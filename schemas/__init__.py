"""The vocabulary: Avro schemas, framing, event types, codec. Imports nothing of ours."""
