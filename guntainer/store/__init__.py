"""Unpacked rootfs by digest: `lookup` (the warm path), `fill`, `asynchronous` (the same for an event loop), `prune`, `remove`."""
