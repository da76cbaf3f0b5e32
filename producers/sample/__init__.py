"""Our own generator: whole lives of grants, told in the tools' own formats and read by the real adapters.

Three layers: ``life`` imagines what happens, from ``world``; ``teleport`` and ``vault`` tell it as the tools would
write it; ``player`` decides when. Nothing here makes an event: that is the adapters' work.
"""
