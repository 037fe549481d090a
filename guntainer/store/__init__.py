"""What was unpacked, by digest: `lookup` (the warm path), `acquire`, `fill`, `asynchronous`, `entries`, `prune`, `verify`, `usage`."""
