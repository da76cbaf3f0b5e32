"""Constructors for access events, one per event type. ``grantledger.producers`` exports them all."""
