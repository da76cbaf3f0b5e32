"""The mathematics of the ledger: leaves, chain, tree, notes, keys, proofs. No Kafka, no database, no clock."""
