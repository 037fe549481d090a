"""A first job file: made from what is in a folder, or from a GitHub workflow."""
