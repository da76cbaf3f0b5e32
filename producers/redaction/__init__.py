"""Redaction: secrets and personal data are replaced before anything of a record is hashed, mapped or sent.

``docs/redaction.md`` documents the levels and the rules. ``rules.py`` has the built-in rules, ``file.py`` those of a
file, ``sql.py`` and ``numbers.py`` what they find, and ``redactor.py`` applies them to records and events.
"""
