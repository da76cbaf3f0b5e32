"""The one Kafka layer: client options, offsets, topic identity, transactions, the publisher, the sealed-log reader."""
