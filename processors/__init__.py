"""The processes of the stream: seal, anchor, watch and sweep, and how a stopped log is opened again (epochs)."""
