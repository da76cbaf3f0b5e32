"""Alerts where people look: findings out of the sealed log, through a durable outbox, to Alertmanager and webhooks."""
