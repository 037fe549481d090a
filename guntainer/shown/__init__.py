"""What a batch shows: jobs' bytes made harmless, how far it is, the live table, heartbeats, and what a CI system is told."""
