"""The watch policy of the simulated company: under it, only faults cause findings.

The limits are short because simulated lifecycles last minutes, not hours.
"""

from __future__ import annotations

SECOND = 1_000_000
"""Microseconds."""
GRACE = 10 * SECOND
APPROVAL_WAIT = 20 * SECOND
CONFIRM_WAIT = 60 * SECOND
LEASE = 240 * SECOND
ASSIGNMENT = 300 * SECOND
SILENCE = 120 * SECOND
GAP_WAIT = 15 * SECOND

POLICY = """\
[default]
grace_seconds = 10
approval_wait_seconds = 20
confirm_wait_seconds = 60

# A Vault token ends when Vault revokes it or when its TTL has passed.
[[rule]]
source = "vault"
resource_kind = "vault_namespace"
removal = ["confirmed", "api_accepted", "deadline"]
max_seconds = 600

# A lease is an account in a database. The audit log contains no end, and an accepted revocation does not prove that the
# database removed the account: only a check does.
[[rule]]
source = "vault"
resource_kind = "vault_path"
max_seconds = 240

# A certificate expires automatically, and a lock blocks it immediately.
[[rule]]
source = "teleport"
removal = ["confirmed", "api_accepted", "deadline"]
approvals = 1

[[rule]]
source = "teleport"
resource_kind = "access_list"
approvals = 0

# hoop records nothing when a review expires: a check is needed.
[[rule]]
source = "hoop"
approvals = 1
max_seconds = 600

# STS credentials expire automatically.
[[rule]]
source = "cloudtrail"
entitlement = "arn:aws:iam::*"
removal = ["confirmed", "deadline"]
max_seconds = 3600

# In a sandbox an accepted deletion is enough.
[[rule]]
source = "cloudtrail"
instance = "sandbox-*"
entitlement = "arn:aws:sso:*"
removal = ["confirmed", "api_accepted"]

# An Identity Center assignment has no end, and AWS only ever reports its deletion as "in progress".
[[rule]]
source = "cloudtrail"
entitlement = "arn:aws:sso:*"
max_seconds = 300

[[rule]]
source = "deploy-bot"
approvals = 1
max_seconds = 600

[[source]]
gap_wait_seconds = 15

[[source]]
system = "teleport"
instance = "branch-*"
silent_after_seconds = 120
"""
