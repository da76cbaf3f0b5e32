"""Alerts: findings from the sealed log, through a durable outbox, to Alertmanager and webhooks."""
