"""The one door to the kernel: raw system calls, their numbers and constants. Raises OSError and nothing else."""
