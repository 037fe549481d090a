"""A rootfs → archive or OCI layout: `helper` sees it as a container would, `walking` reads it, `saving` writes it."""
