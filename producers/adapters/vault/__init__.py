"""HashiCorp Vault and OpenBao: leases, tokens and certificates of the audit log."""
