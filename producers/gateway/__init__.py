"""The gateway: an HTTP way in, for tools and programs that push. ``docs/gateway.md`` explains how to use it.

``app.py`` has the routes. A request is authenticated (``credentials``), read (``body``), turned into events
(``own_events``, ``tool_records``, ``otlp``) and stored (``delivery``), before it is answered.
"""
