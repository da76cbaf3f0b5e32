"""Teleport: access requests, certificates, sessions and commands."""
