"""Jobs: what is to be run, as pure values, and the job files that they are read from.

`model` is imported by the fast `guntainer run` path, so this package itself imports nothing.
"""
