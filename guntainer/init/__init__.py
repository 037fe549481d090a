"""Everything that runs in the fork helper and between clone3 and execve. Imports the kernel and a few stdlib modules."""
