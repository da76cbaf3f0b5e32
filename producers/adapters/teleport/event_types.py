"""Teleport's audit event types: which ones are skipped and why, and which members become action arguments.

Sources: "Audit Event Reference" in Teleport's documentation, and ``events.proto``.
"""

from __future__ import annotations

SKIP_REASONS = {
    "authentication": "sign-ins, also as users that they create, tokens, second factors and passwords: identity",
    "billing": "the account with the vendor",
    "configuration_change": "resources and settings of the cluster, which name no one who may get access",
    "device_inventory": "registration and recognition of devices",
    "event_unknown": "an unknown type that names no session",
    "machine_identity": "hosts, agents and bots that join the cluster or get host certificates",
    "no_subject": "a connection without a user",
    "nothing_changed": "a failed change, or an unchanged state",
    "recording_bookkeeping": "chunks of recordings; the recorded actions have their own records",
    "resource_search": "searches for requestable resources; nothing was requested or granted",
    "telemetry": "window sizes and byte counts of a session",
}

SKIPPED_TYPES: dict[str, tuple[str, ...]] = {
    "resource_search": ("access_request.search",),
    "recording_bookkeeping": ("app.session.chunk", "desktop.recording"),
    "machine_identity": ("bot.join", "cert.generation_mismatch", "instance.join"),
    "device_inventory": ("device",),
    "configuration_change": ("upgradewindowstart.update",),
    "telemetry": ("print", "resize", "session.data"),
    "authentication": (
        "privilege_token.create", "recovery_code.generated", "recovery_code.used", "recovery_token.create",
        "reset_password_token.create", "user.login", "user.password_change", "user_login.invalid_access_list",
    ),
    "no_subject": ("session.connect",),
}  # fmt: skip
"""Skipped types by reason, checked before the mapped types."""

SKIPPED_PREFIXES: dict[str, tuple[str, ...]] = {
    "configuration_change": (
        "app.", "auth_preference.", "cluster_networking_config.", "db.", "discovery_config.", "github.",
        "integration.", "kube.", "oidc.", "okta.", "plugin.", "saml.", "session_recording_config.", "trusted_cluster",
        "user.", "windows.desktop.create", "windows.desktop.delete", "windows.desktop.update",
    ),
    "billing": ("billing.",),
    "device_inventory": ("device.",),
    "machine_identity": ("join_token.", "spiffe."),
    "authentication": ("mfa.", "mfa_auth_challenge."),
}  # fmt: skip
"""Prefixes of skipped types by reason, checked after the mapped types."""

SESSION_STARTS = frozenset({
    "session.start", "db.session.start", "app.session.start", "windows.desktop.session.start", "mcp.session.start",
})  # fmt: skip
SESSION_ENDS = frozenset({
    "session.end", "db.session.end", "app.session.end", "app.session.expire", "windows.desktop.session.end",
    "client.disconnect", "mcp.session.end", "session.upload",
})  # fmt: skip
DENIALS = frozenset({"auth", "session.rejected"})
ACTIONS = frozenset(
    {
        "exec",
        "git.command",
        "kube.request",
        "port",
        "scp",
        "sftp",
        "sftp_summary",
        "ssm.run",
        "subsystem",
        "x11-forward",
    }
)
ACTION_PREFIXES = ("session.", "app.session.", "desktop.", "windows.desktop.session.", "mcp.session.", "git.", "port.")
"""Actions in a session. New Teleport types with these prefixes are mapped as well."""
DISCOVERY_ACTIONS = frozenset({"ssm.run"})
"""Scripts that Teleport's discovery runs, without a user."""
FAILURES = frozenset({"db.session.malformed_packet"})
"""Failures whose code nevertheless ends in I."""
QUERY_PREFIX = "db.session."
MCP_PREFIX = "mcp.session."
"""Sessions with servers of the Model Context Protocol: the tool calls of an agent."""

SFTP_ACTIONS = (
    "", "open", "close", "read", "write", "lstat", "fstat", "setstat", "fsetstat", "opendir", "readdir", "remove",
    "mkdir", "rmdir", "realpath", "stat", "rename", "readlink", "symlink", "link",
)  # fmt: skip
"""``SFTPAction`` of ``events.proto``, by number."""

POSITIONAL = frozenset(
    {"argv", "path", "target_path", "request_path", "file_path", "parameters", "function_args", "addr", "name", "uri"}
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
    "git.command": ("path",),
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
