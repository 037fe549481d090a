"""A Gunfile → an archive or an OCI layout: `gunfile` reads it, `building` does what it says, `layers` keeps what was done."""
