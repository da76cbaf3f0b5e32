"""The HTTP sender that alerts and enforcers share: signing, TLS, timeouts, and the meaning of an answer."""
