"""Archive → tree: `tree` writes without ever leaving it, `reading` asks libarchive, `worker` is the process that does both."""
