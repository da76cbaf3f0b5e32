"""AWS CloudTrail: STS credentials, Identity Center, sessions."""
