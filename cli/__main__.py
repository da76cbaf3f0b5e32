"""``python -m grantledger.cli``: the same as the command ``grantledger``."""

from .app import main

main()
