"""Kubernetes: role bindings, tokens and certificates, sessions in containers."""
