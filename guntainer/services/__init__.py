"""Containers that a job needs beside its own: they live as long as it does, and share its network.

`pod` makes that network, `readiness` finds out whether a service is ready, by a command in `tried`, `running` has the life of
all of them.
"""
