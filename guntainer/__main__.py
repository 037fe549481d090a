"""`python -m guntainer`: the same as the command `guntainer`."""

from guntainer.cli import main

raise SystemExit(main())
