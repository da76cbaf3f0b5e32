"""The ways in: client library, emit, import and the adapters of the tools."""
