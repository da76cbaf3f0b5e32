"""The enforcer carries out revoke commands: a separate process with its own credentials."""
