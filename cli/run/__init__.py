"""``grantledger run``: one module for each process of the pipeline."""
