"""Archive → tree: `tree` writes without leaving it, `reading` asks libarchive, `feeder` undoes compressions beside them."""
