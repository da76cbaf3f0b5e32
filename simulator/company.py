"""The simulated company: its people, resources, reasons, and the statements and commands they use."""

from __future__ import annotations

from dataclasses import dataclass

CLUSTER = "access.sample.example"
VAULT_NAMESPACE = "sample/"


@dataclass(frozen=True, slots=True)
class Employee:
    """An employee."""

    login: str
    address: str

    @property
    def email(self) -> str:
        """The user name in the tools."""
        return f"{self.login}@sample.example"


@dataclass(frozen=True, slots=True)
class Target:
    """A production resource, and the role that gives access to it.

    ``kind`` is the tool's term: db, node or kube_cluster (Teleport), connection (hoop), role or assignment (AWS).
    """

    kind: str
    name: str
    role: str
    user: str
    actions: tuple[str, ...]


PEOPLE = (
    Employee("amara.okafor", "10.20.1.17"),
    Employee("ben.lindqvist", "10.20.1.23"),
    Employee("chiara.rossi", "10.20.2.5"),
    Employee("dmitri.sokolov", "10.20.2.41"),
    Employee("elif.yilmaz", "10.20.3.9"),
    Employee("farid.haddad", "10.20.3.77"),
    Employee("grace.mwangi", "10.20.4.12"),
    Employee("hiro.tanaka", "10.20.4.60"),
)

REVIEWERS = (
    Employee("ines.moreau", "10.20.9.2"),
    Employee("jonas.weber", "10.20.9.3"),
    Employee("kavya.rao", "10.20.9.4"),
)

_SQL = (
    "SELECT id, state, updated_at FROM orders WHERE id = 4711823",
    "SELECT count(*) FROM payments WHERE status = 'stuck'",
    "UPDATE payments SET status = 'retry' WHERE id = 99120",
    "EXPLAIN SELECT * FROM invoices WHERE customer_id = 20931",
    "SELECT pid, state, query FROM pg_stat_activity WHERE state <> 'idle'",
    "DELETE FROM job_locks WHERE acquired_at < now() - interval '1 day'",
)
_SHELL = (
    "/usr/bin/systemctl status payments-api",
    "/usr/bin/journalctl -u payments-api --since -15min",
    "/usr/bin/systemctl restart payments-api",
    "/usr/bin/df -h /var/lib/postgresql",
    "/usr/bin/tail -n 200 /var/log/payments/error.log",
    "/usr/bin/ss -tlnp",
)
_KUBE = (
    "GET /api/v1/namespaces/checkout/pods",
    "GET /api/v1/namespaces/checkout/pods/checkout-5d9f/log",
    "PATCH /apis/apps/v1/namespaces/checkout/deployments/checkout",
    "DELETE /api/v1/namespaces/checkout/pods/checkout-5d9f",
)

TARGETS = (
    Target("db", "orders-prod", "orders-readwrite", "orders_rw", _SQL),
    Target("db", "billing-prod", "billing-readonly", "billing_ro", _SQL),
    Target("node", "payments-1.prod", "payments-operator", "ops", _SHELL),
    Target("node", "payments-2.prod", "payments-operator", "ops", _SHELL),
    Target("kube_cluster", "eu-prod-1", "checkout-operator", "checkout-operator", _KUBE),
)

CONNECTIONS = (
    Target("connection", "orders-postgres", "", "", _SQL),
    Target("connection", "billing-postgres", "", "", _SQL),
    Target("connection", "ledger-mysql", "", "", _SQL),
)

_CALLS = (
    "rds:RebootDBInstance",
    "ec2:DescribeInstances",
    "ecs:UpdateService",
    "logs:FilterLogEvents",
    "autoscaling:SetDesiredCapacity",
)
AWS_REGION = "eu-central-1"
AWS_TARGETS = (
    Target("role", "104837261950", "IncidentResponder", "i-0d41c7aa93be52f10", _CALLS),
    Target("role", "550173928462", "DatabaseOperator", "i-07be21f4c90a3d6e8", _CALLS),
    Target("assignment", "104837261950", "ps-51c0a7e2f83b9d46", "ProductionSupport", _CALLS),
    Target("assignment", "550173928462", "ps-9e27d04b61fa3c85", "PaymentsAdmin", _CALLS),
)
"""``name`` is the account, ``role`` the role or permission set, ``user`` an instance or the permission set's name."""

VAULT_ROLES = ("orders-readwrite", "orders-readonly", "billing-readonly")
VAULT_PATHS = ("kv/data/payments/api", "kv/data/orders/smtp", "kv/metadata/payments", "transit/decrypt/orders")
VAULT_FORBIDDEN = ("kv/data/hr/salaries", "sys/policies/acl/admin", "kv/data/board/minutes")

REASONS = (
    "customer reports a stuck payment",
    "restart after failed deploy",
    "investigating slow checkout",
    "data fix agreed with finance",
    "disk almost full alert",
    "on-call page, error rate above 2 %",
    "verify migration result",
)
DENIALS = ("please use the read replica", "no ticket given", "change freeze until Monday")
