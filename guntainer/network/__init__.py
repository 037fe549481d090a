"""Private networks: a container's network namespace, connected from outside by pasta or slirp4netns.

`tools` knows the two programs, `publishing` the ports of the host, `link` one container's network from its launch to its end.
Imported only where a container has a private network.
"""
