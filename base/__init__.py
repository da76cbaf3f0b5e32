"""What every folder may use: the base error class, the retry policy, the TOML loader."""
