"""Rootfs from elsewhere: http(s) URLs and the pull half of the OCI distribution spec.

Blocking, and without a thread: this runs in processes that do nothing else. Nothing that a server says is believed: sizes have
bounds, digests are taken here. Names, passwords and tokens are in no message, no repr and on no command line.
"""
