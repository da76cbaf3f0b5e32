"""grantledger: the record of temporary production access that nobody can quietly change."""

__version__ = "0.1.0"
