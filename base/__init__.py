"""Shared by all folders: the base error class, the retry policy, the TOML loader, secrets."""
