"""The mathematics: leaves, chain, tree, notes, checkpoints, keys, the verifier. No Kafka, no database, no clock."""
