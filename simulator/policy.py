"""The policy of the made-up company, as a policy file for the watch: under it a life in order is no finding.

The times are short, because sample lives last minutes and not hours.
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

# A Vault token is dead when Vault says so, and when its time is up.
[[rule]]
source = "vault"
resource_kind = "vault_namespace"
removal = ["confirmed", "api_accepted", "deadline"]
max_seconds = 600

# A lease is an account in some database. Its entry in the log has no end, and that Vault took the order to revoke it
# does not say that the database did: only a look there does.
[[rule]]
source = "vault"
resource_kind = "vault_path"
max_seconds = 240

# A certificate ends by itself, and a lock shuts it out at once.
[[rule]]
source = "teleport"
removal = ["confirmed", "api_accepted", "deadline"]
approvals = 1

[[rule]]
source = "teleport"
resource_kind = "access_list"
approvals = 0

# hoop writes nothing when a review's time is up: somebody has to look.
[[rule]]
source = "hoop"
approvals = 1
max_seconds = 600

# Credentials of STS end by themselves.
[[rule]]
source = "cloudtrail"
entitlement = "arn:aws:iam::*"
removal = ["confirmed", "deadline"]
max_seconds = 3600

# In a sandbox nobody looks after an assignment: that AWS took the order to delete it is enough.
[[rule]]
source = "cloudtrail"
instance = "sandbox-*"
entitlement = "arn:aws:sso:*"
removal = ["confirmed", "api_accepted"]

# An assignment of Identity Center has no end, and its deletion is only ever "in progress".
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
