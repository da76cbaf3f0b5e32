"""What carries out revoke commands: a process of its own, with its own credentials."""
