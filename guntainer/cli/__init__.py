"""The door: the command line. Picks the command, and imports nothing that another command needs.

The only place that prints, reads argv, and turns errors into exit codes.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from guntainer.cli.options import Options

COMMANDS = {
    "run": "run a command in a rootfs",
    "batch": "run the jobs of a job file, many at a time",
    "init": "write a first job file from what is in a folder, or from a GitHub workflow",
    "report": "make a batch's reports again from its results, and compare two batches",
    "build": "make an archive or an image by a Gunfile",
    "pull": "have images, URLs and archives in the store before they are needed",
    "inspect": "tell what a rootfs, an archive or an image is, without running it",
    "store": "list, measure, check, export and remove what is kept",
    "pack": "make a small rootfs archive from programs of this machine",
    "unshare": "run a program of this machine as root over your sub-ids",
    "doctor": "try what this host allows, and say how to mend the rest",
    "schema": "print the JSON Schema of a job file, for completion in editors",
    "completion": "print a shell completion script",
}


def entry() -> NoReturn:
    """The program `guntainer`: the command line, then an end without the interpreter's own tidying up.

    Two habits of a long-lived program cost a short one a sixth of its time: collecting garbage while modules are still being
    imported, and taking every module apart before the exit. Nothing of ours waits for either.
    """
    import gc
    import os

    from guntainer import descriptors, errors, interrupts

    _fill_standard_descriptors()
    descriptors.make_room(sys.argv)
    gc.set_threshold(50_000, 20, 20)
    try:
        interrupts.install()
        code = main()
    except interrupts.Interrupted as signal:  # before `main` could hear it, or while it was telling of something else
        code = errors.SIGNAL_BASE + signal.number
    os._exit(code)


def _fill_standard_descriptors() -> None:
    """What we are started without would be the number of the next file that is opened: output would end up in that."""
    import os

    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDONLY)  # the lowest free number is this one; writing to it fails


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    from guntainer import errors, interrupts

    global _as_json
    debug = "--debug" in words[: _options_end(words)]
    _as_json = "--log-format=json" in words or ("--log-format" in words and "json" in words)
    try:
        return _command(words)
    except errors.JobFileError as error:
        for problem in error.problems:
            complain(problem)
        return error.exit_code
    except errors.GuntainerError as error:
        if debug:
            _traceback()
        complain(str(error))
        code = error.exit_code
        if isinstance(error, errors.UsageError) and words[:1] != ["run"]:
            code = errors.USAGE
        return code
    except interrupts.Interrupted as signal:
        return errors.SIGNAL_BASE + signal.number
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except BrokenPipeError:
        return errors.SIGNAL_BASE + 13  # SIGPIPE, as in a shell's pipe
    except OSError as error:
        if debug:
            _traceback()
        complain(errors.describe_oserror(error))
        return errors.OWN_FAILURE
    except Exception as error:
        # a mistake of ours, or a library's own kind of error: one line all the same
        if debug:
            _traceback()
        complain(f"{type(error).__name__}: {error}; --debug shows where")
        return errors.OWN_FAILURE


def _traceback() -> None:
    import traceback

    write(traceback.format_exc())


def _options_end(words: list[str]) -> int:
    """`--debug` is ours only before the container's own command; an approximation that errs towards showing more."""
    return next((at for at, word in enumerate(words) if at and not word.startswith("-")), len(words))


def complain(text: str, level: str = "error") -> None:
    """One message on stderr, on one line whatever is in it: names in it may come from anywhere."""
    if _as_json:
        import json

        write(json.dumps({"event": text, "level": level}) + "\n")
        return
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if "##" in shown:  # a CI system may read it
        import os

        from guntainer.shown.ci import Ci

        shown = Ci(os.environ).within(shown)
    write(f"guntainer: {level}: {shown}\n")


_as_json = False


def show(text: str) -> None:
    """Text to stdout, in UTF-8 whatever the locale says: a help text must not fail for a dash.

    Raises:
        OSError: it can not be written.
    """
    import os

    data = memoryview(text.encode("utf-8", "surrogateescape"))
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def write(text: str) -> None:
    """Text to stderr, whatever its encoding is, and whoever has closed it."""
    import os

    try:
        os.write(2, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass


class Notes:
    """Our own messages of a command that runs one thing after the other, on stderr, a line each.

    Args:
        args: with the options that are COMMON, and `verbose` where the command has that.
    """

    def __init__(self, args: Options) -> None:
        verbose = getattr(args, "verbose", False)
        self._least = args.log_level or ("warning" if args.quiet else "debug" if verbose else "info")
        self._as_json = args.log_format == "json"

    def __call__(self, text: str, level: str = "info") -> None:
        from guntainer.cli.options import LEVELS

        if LEVELS.index(level) < LEVELS.index(self._least):
            return
        if self._as_json:
            from guntainer import log

            getattr(log.configure(level=self._least, format="json"), level)(text)
        else:
            write(f"guntainer: {text}\n" if level in ("info", "debug") else f"guntainer: {level}: {text}\n")


def _command(words: list[str]) -> int:
    name = words[0] if words else ""
    if name in ("run", "build"):
        from guntainer import exeseal

        exeseal.reexecute()  # they clone themselves
    if name in COMMANDS:
        return _load(name)(words[1:])
    if name in ("--version", "-V"):
        from guntainer import __version__

        show(f"guntainer {__version__}\n")
        return 0
    if name in ("", "--help", "-h", "help"):
        if name == "help" and words[1:] and words[1] in COMMANDS:
            return _load(words[1])(["--help"])
        show(usage() + "\n")
        return 0 if name else 2
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    complain(f"unknown command {name!r}" + (f"; did you mean {near[0]!r}?" if near else "; see guntainer --help"))
    return 2


def _load(name: str) -> Callable[[list[str]], int]:
    if name == "run":
        from guntainer.cli.run import main as run_main

        return run_main
    from importlib import import_module

    command: Callable[[list[str]], int] = import_module(f"guntainer.cli.{name}").main
    return command


def usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return (
        "usage: guntainer COMMAND [OPTIONS] …\n\n"
        "Rootless Linux containers, many at a time, from plain rootfs archives.\n\n"
        f"commands:\n{rows}\n\n"
        "guntainer COMMAND --help says more; guntainer --version names this version."
    )
