"""Any other tool, by a mapping file: TOML with JMESPath. ``docs/mapping.md`` documents the format.

``file.py`` is the model of the file and finds its mistakes, ``values.py`` reads one value out of a record,
``adapter.py`` is the adapter that follows the rules, and ``shipped/`` has the files that come with the package.
"""
