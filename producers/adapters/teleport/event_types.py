"""Teleport's audit event types: which ones are skipped and why, and which members become action arguments.

Sources: "Audit Event Reference" in Teleport's documentation, and ``events.proto``.
"""

from __future__ import annotations

SKIP_REASONS = {
    "authentication": "sign-ins, tokens, second factors and passwords: identity, not access",
    "billing": "the account with the vendor",
    "configuration_change": "users, roles, resources and cluster settings: standing access, not temporary access",
    "device_inventory": "registration and recognition of devices",
    "event_unknown": "an unknown type that names no session",
    "lock_not_a_person": "a lock on a role, login, node or device, not on a user or access request",
    "lock_target_unknown": "a lock record without a target",
    "machine_identity": "hosts, agents and bots that join the cluster or get host certificates",
    "no_subject": "a connection without a user",
    "nothing_changed": "a failed change, or an unchanged state",
    "recording_bookkeeping": "chunks and uploads of recordings; the recorded actions have their own records",
    "resource_search": "searches for requestable resources; nothing was requested or granted",
    "telemetry": "window sizes and byte counts of a session",
}

SKIPPED = {
    "access_request.search": "resource_search",
    "app.session.chunk": "recording_bookkeeping",
    "bot.join": "machine_identity",
    "cert.generation_mismatch": "machine_identity",
    "desktop.recording": "recording_bookkeeping",
    "device": "device_inventory",
    "instance.join": "machine_identity",
    "lock.deleted": "configuration_change",
    "print": "telemetry",
    "privilege_token.create": "authentication",
    "recovery_code.generated": "authentication",
    "recovery_code.used": "authentication",
    "recovery_token.create": "authentication",
    "reset_password_token.create": "authentication",
    "resize": "telemetry",
    "session.connect": "no_subject",
    "session.data": "telemetry",
    "session.upload": "recording_bookkeeping",
    "upgradewindowstart.update": "configuration_change",
    "user.login": "authentication",
    "user.password_change": "authentication",
}

SKIPPED_PREFIXES = (
    ("app.", "configuration_change"),
    ("auth_preference.", "configuration_change"),
    ("billing.", "billing"),
    ("bot.", "configuration_change"),
    ("cluster_networking_config.", "configuration_change"),
    ("db.", "configuration_change"),
    ("device.", "device_inventory"),
    ("discovery_config.", "configuration_change"),
    ("github.", "configuration_change"),
    ("integration.", "configuration_change"),
    ("join_token.", "machine_identity"),
    ("kube.", "configuration_change"),
    ("login_rule.", "configuration_change"),
    ("mfa.", "authentication"),
    ("mfa_auth_challenge.", "authentication"),
    ("oidc.", "configuration_change"),
    ("okta.", "configuration_change"),
    ("plugin.", "configuration_change"),
    ("role.", "configuration_change"),
    ("saml.", "configuration_change"),
    ("session_recording_config.", "configuration_change"),
    ("spiffe.", "machine_identity"),
    ("trusted_cluster", "configuration_change"),
    ("user.", "configuration_change"),
    ("windows.desktop.create", "configuration_change"),
    ("windows.desktop.delete", "configuration_change"),
    ("windows.desktop.update", "configuration_change"),
)
"""Checked in order, after all mapped types."""

SESSION_STARTS = frozenset({"session.start", "db.session.start", "app.session.start", "windows.desktop.session.start"})
SESSION_ENDS = frozenset(
    {
        "session.end",
        "db.session.end",
        "app.session.end",
        "app.session.expire",
        "windows.desktop.session.end",
        "client.disconnect",
    }
)
DENIALS = frozenset({"auth", "session.rejected"})
ACTIONS = frozenset(
    {"exec", "kube.request", "port", "scp", "sftp", "sftp_summary", "ssm.run", "subsystem", "x11-forward"}
)
ACTION_PREFIXES = ("session.", "app.session.", "desktop.", "windows.desktop.session.", "port.")
"""Actions in a session. New Teleport types with these prefixes are mapped as well."""
DISCOVERY_ACTIONS = frozenset({"ssm.run"})
"""Scripts that Teleport's discovery runs, without a user."""
FAILURES = frozenset({"db.session.malformed_packet"})
"""Failures whose code nevertheless ends in I."""
QUERY_PREFIX = "db.session."

SFTP_ACTIONS = {
    1: "open",
    2: "close",
    3: "read",
    4: "write",
    5: "lstat",
    6: "fstat",
    7: "setstat",
    8: "fsetstat",
    9: "opendir",
    10: "readdir",
    11: "remove",
    12: "mkdir",
    13: "rmdir",
    14: "realpath",
    15: "stat",
    16: "rename",
    17: "readlink",
    18: "symlink",
    19: "link",
}
"""``SFTPAction`` of ``events.proto``."""

POSITIONAL = frozenset(
    {"argv", "path", "target_path", "request_path", "file_path", "parameters", "function_args", "addr", "name"}
)
"""Arguments that are written without a name; the others become ``name=value``."""

ARGUMENTS = {
    "app.session.dynamodb.request": ("target", "path", "raw_query", "aws_region", "status_code"),
    "app.session.request": ("path", "raw_query", "status_code"),
    "db.session.cassandra.batch": ("batch_type", "consistency"),
    "db.session.cassandra.execute": ("query_id",),
    "db.session.cassandra.register": ("event_types",),
    "db.session.dynamodb.request": ("method", "target", "path", "raw_query", "status_code"),
    "db.session.elasticsearch.request": ("method", "path", "raw_query", "target", "status_code"),
    "db.session.opensearch.request": ("method", "path", "raw_query", "target", "status_code"),
    "db.session.mysql.create_db": ("schema_name",),
    "db.session.mysql.drop_db": ("schema_name",),
    "db.session.mysql.init_db": ("schema_name",),
    "db.session.mysql.process_kill": ("process_id",),
    "db.session.mysql.refresh": ("subcommand",),
    "db.session.mysql.statements.bulk_execute": ("statement_id", "parameters"),
    "db.session.mysql.statements.close": ("statement_id",),
    "db.session.mysql.statements.execute": ("statement_id", "parameters"),
    "db.session.mysql.statements.fetch": ("statement_id", "rows_count"),
    "db.session.mysql.statements.reset": ("statement_id",),
    "db.session.mysql.statements.send_long_data": ("statement_id", "parameter_id", "data_size"),
    "db.session.postgres.function": ("function_oid", "function_args"),
    "db.session.postgres.statements.bind": ("statement_name", "portal_name", "parameters"),
    "db.session.postgres.statements.close": ("statement_name", "portal_name"),
    "db.session.postgres.statements.execute": ("portal_name",),
    "db.session.postgres.statements.parse": ("statement_name",),
    "db.session.query": ("db_query_parameters",),
    "db.session.spanner.rpc": ("procedure",),
    "db.session.sqlserver.rpc_request": ("proc_name", "parameters"),
    "desktop.clipboard.receive": ("length",),
    "desktop.clipboard.send": ("length",),
    "desktop.directory.read": ("file_path", "directory_name", "offset", "length"),
    "desktop.directory.share": ("directory_name",),
    "desktop.directory.write": ("file_path", "directory_name", "offset", "length"),
    "kube.request": ("request_path", "response_code"),
    "port": ("addr",),
    "scp": ("path",),
    "session.command": ("argv",),
    "session.disk": ("path",),
    "session.network": ("dst_addr", "dst_port"),
    "sftp": ("path", "target_path", "working_directory"),
    "ssm.run": ("instance_id", "region", "account_id"),
    "subsystem": ("name",),
}
"""The members of a record that become ``action.args``, in this order."""
