"""Settings, keys, the local stack and its status. Every error is a GrantledgerError, with a message for people."""
