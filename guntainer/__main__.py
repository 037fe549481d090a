"""`python -m guntainer`: the same as the command `guntainer`."""

from guntainer.cli import entry

entry()
