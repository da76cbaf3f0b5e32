"""The Model Context Protocol (MCP): logs of JSON-RPC messages between agents and the servers of their tools."""
