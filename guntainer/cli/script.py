#!python
"""The program `guntainer`, as it is put into bin/: pip writes its interpreter into the first line.

Not an entry point of the packaging kind: the script that pip makes for one imports `re`, a fifth of a warm run's time.
"""

from guntainer.cli import entry

if __name__ == "__main__":
    entry()
