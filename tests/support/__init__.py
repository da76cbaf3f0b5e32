"""What tests share: a real broker, the pipeline's real processes, and waiting for conditions instead of sleeping."""
