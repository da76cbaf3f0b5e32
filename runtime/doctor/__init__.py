"""The checks of ``grantledger doctor``: each subject reads facts at its edge, and a pure function judges them."""
