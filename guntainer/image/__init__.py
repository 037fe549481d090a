"""Container images: what their documents say, and where their layers lie. Nothing is unpacked, fetched or written here."""
