"""Follows files, pipes and journald units: sends their records as they are written, by the same road as ``import``.

``position.py``, ``decisions.py`` and ``rotated_names.py`` decide, without reading anything themselves: which file is
which after a rotation, and where its reading begins. The other files are the edges.

After a start, an adapter that remembers earlier records (``Adapter.REMEMBERS``) must know them again. The files that
are still there, also rotated ones, are read from their beginnings, the oldest first; what was acknowledged before is
mapped and not sent. This needs no format for the memory of an adapter, and cannot contradict the files. It costs one
reading of the files per start. What is in deleted files only is not known, as with ``import``.
"""
