"""Simulated access lifecycles in the tools' own record formats, for ``demo``, benchmarks and tests.

- ``lifecycle.py``: the plan of one lifecycle, from the request to the removal. ``generator.py`` draws random ones, with
  the people and resources of ``company.py``.
- ``records/``: writes a lifecycle as native records of Teleport, Vault, hoop and CloudTrail, or as events of two of the
  company's own programs.
- ``faults/``: the faults that can be planted in a lifecycle.
- ``scenario.py``: a stream of scenarios, some of them with a fault. ``playback.py`` sends them in real time.
- ``company_policy.py``: the watch policy under which only faults cause findings.

The simulator never builds events: the adapters read the native records. ``docs/simulator.md`` lists all scenarios.
"""
