"""Our own generator: whole lives of grants, told in the tools' own formats and read by the real adapters.

``plots`` imagine what happens, from ``world``; ``faults`` let some of it go wrong; ``teleport``, ``vault``, ``hoop``
and ``cloudtrail`` tell it as the tools would write it, ``own`` and ``deploys`` as a company's programs would.
``player`` tells it in real time, ``simulation`` in virtual time and says what a watch must find in it. Nothing here
makes an event: that is the adapters' work. ``docs/simulator.md`` tells the stories.
"""
