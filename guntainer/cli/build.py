"""`guntainer build [OPTIONS] IMAGE [GUNFILE]`: a rootfs archive or an OCI layout, made step by step."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.archive import inspection
from guntainer.builder import building, gunfile, layers
from guntainer.builder.gunfile import CMD, ENV, WORKDIR
from guntainer.cli import Notes, options
from guntainer.cli.options import FLAG, LIST, Option
from guntainer.cli.parsing import Parser, build, read_slowly
from guntainer.cli.run_job import bounded, environment, timeout
from guntainer.export import layout, names, saving
from guntainer.export.layout import Layout
from guntainer.jobs import sources
from guntainer.jobs.model import NETWORKS, USERNS, Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.builder.building import Build
    from guntainer.builder.gunfile import Gunfile
    from guntainer.cli.options import Options
    from guntainer.export.names import Output
    from guntainer.idmap import Ids

_EPILOG = """\
IMAGE is what is made: NAME.tar[.gz|.zst|.xz|.bz2|.lz4], a rootfs archive, or oci:DIR[:TAG], an OCI image layout with what the
base is as its lowest layer and a layer for each step that has changed a file. It is put into place when it is whole; an archive
that was there before is replaced then, an image of the same tag as well.

GUNFILE (default: Gunfile; -: stdin) has one instruction a line:
  Using "alpine.tar.gz"      what it begins from: whatever `guntainer run` takes; first, and once
  Exec "apk add make"        run by /bin/sh -e -c
  Copy "src" "/src"          a file, or what is in a folder, from the Gunfile's folder; it becomes root's
  Env "NAME=value"           for the steps after it, and for the image
  Workdir "/src"             the same; the folder is made
  Cmd ["make", "test"]       what the image runs; or a text, for a shell
A backslash at a line's end continues it; # begins a comment; "…" has escapes, '…' has none.

A step is not done again where its text, what it copies, and all before it are the same: `guntainer store` has it.

exit codes: 0 made; 1 a step failed; 2 bad usage or a bad Gunfile; 125 guntainer failed; 130 Ctrl-C.
"""

OPTIONS = (
    Option("--help", kind=FLAG, help="show this and exit"),
    Option("-e", "--env", kind=LIST, metavar="K[=V]", help="a variable for Exec alone; without =V: the host's"),
    Option("--env-file", kind=LIST, metavar="FILE", help="read K=V lines"),
    Option(
        "--network", default="host", choices=NETWORKS, metavar="|".join(NETWORKS), help="of Exec (default: {default})"
    ),
    Option("--timeout", metavar="TIME", help="the longest that one step may take (30s, 5m)"),
    Option("--no-cache", kind=FLAG, help="do every step again, and keep none"),
    Option("--userns", choices=USERNS, default="auto", metavar="|".join(USERNS), help="ids, as of run (default: auto)"),
    Option("--pull", default="missing", metavar="missing|always|never", help="when to fetch an image or a URL"),
    Option("--platform", metavar="OS/ARCH", help="of an image for several (default: this machine's)"),
    Option("--max-unpacked", metavar="SIZE", help="refuse what unpacks to more (default: 64g)"),
    Option("--max-entries", metavar="N", help="refuse what holds more files (default: 4000000)"),
    Option("--store", metavar="DIR", help="where unpacked archives and steps are kept"),
    *options.COMMON,
)


def parser() -> Parser:
    return build(
        OPTIONS,
        prog="guntainer build",
        add_help=False,
        usage="guntainer build [OPTIONS] IMAGE [GUNFILE]",
        description="Make a rootfs archive or an OCI image layout, step by step, as your own user.",
        epilog=_EPILOG,
    )


def main(words: list[str]) -> int:
    p = parser()
    read = read_slowly(p, words, positional="IMAGE")
    if read is None:
        return 0
    args, rest = read
    if len(rest) > 2:
        p.error(f"unexpected {rest[2]!r}")
    target = _target(rest[0])
    return _Building(args, target, *_load(rest[1] if len(rest) > 1 else "Gunfile")).run()


class _Target:
    """What is made."""

    def __init__(self, output: Output | None = None, path: str = "", tag: str = "") -> None:
        self.output = output
        self.path = path
        self.tag = tag


def _target(text: str) -> _Target:
    if not text.startswith("oci:"):
        if text == names.STDOUT:
            raise errors.UsageError("IMAGE: expected NAME.tar[.gz|.zst|.xz] or oci:DIR[:TAG]")
        return _Target(names.parse(text))
    source = sources.parse(text, os.getcwd())
    layout.check(source.location, source.reference)
    return _Target(None, source.location, source.reference)


def _load(path: str) -> tuple[Gunfile, str]:
    """The Gunfile, and the folder that its paths are seen from."""
    try:
        if path == "-":
            with open(0, "rb", closefd=False) as file:
                return gunfile.load(file.read(gunfile.LIMIT_BYTES + 1), "stdin", os.getcwd()), os.getcwd()
        with open(path, "rb") as file:
            folder = os.path.dirname(os.path.abspath(path))
            return gunfile.load(file.read(gunfile.LIMIT_BYTES + 1), path, folder), folder
    except OSError as error:
        hint = "write one, or name it: guntainer build IMAGE GUNFILE" if path == "Gunfile" else ""
        raise errors.UsageError(errors.describe_oserror(error), hint=hint) from None


class _Building:
    """One build: the base is leased, the steps are done, the image is written, and back."""

    def __init__(self, args: Options, target: _Target, loaded: Gunfile, folder: str) -> None:
        self._args = args
        self._target = target
        self._gunfile = loaded
        self._folder = folder
        self._run: Any = None
        self.note = Notes(args)
        self._source = bounded(args, loaded.using)
        self._ways = building.Ways(env=tuple(environment(args).items()), network=args.network, timeout_s=timeout(args))
        self._digests = building.digests_of(loaded, folder)
        if self._source.kind == "host":
            raise errors.UsageError(
                f"{loaded.name}:{loaded.using_line}: Using: this machine's own folders are not written"
            )

    def run(self) -> int:
        from guntainer import descriptors, idmap, interrupts, runfolder
        from guntainer.kernel import syscalls

        _no_stdin()
        syscalls.join_session_keyring()
        ids = idmap.enter(idmap.open_ids(self._args.userns))
        self.note(f"ids: {ids.describe()}", "debug")
        descriptors.allow(descriptors.LEAST)
        runfolder.remove_stale()
        if self._ways.network == "private":
            from guntainer.network import tools

            tools.check(self._job())
        self._run = runfolder.RunFolder().__enter__()
        try:
            return self._in(ids)
        finally:
            # from here on there is only clean-up, which is done to its end
            interrupts.ignore()
            self._run.remove()

    def _job(self) -> Job:
        """What the base is opened for."""
        return Job(id="build", rootfs=self._source, network=self._ways.network, cache=not self._args.no_cache)

    def _in(self, ids: Ids) -> int:
        from guntainer.opening import open_rootfs
        from guntainer.store.lookup import open_store

        opened = open_rootfs(self._job(), self._args.store, ids, lambda: self._run, note=self.note)
        with opened as (rootfs, shared):
            lease = opened.lease
            key = (
                layers.key_of(lease.kind, lease.digest)
                if lease is not None
                else layers.key_of_folder(rootfs.folders[0])
            )
            machine = lease.architecture if lease is not None else inspection.architecture(rootfs.folders[0])
            base = building.Base(rootfs=rootfs, key=key, architecture=machine)
            passing = self._args.no_cache or not key  # in the run folder, and gone with it
            store = open_store(f"{self._run.path}/store" if passing else self._args.store, ids)
            build = building.Build(
                self._gunfile,
                self._folder,
                self._digests,
                base,
                ways=self._ways,
                ids=ids,
                store=store,
                shared=shared,
                run=self._run,
                note=self.note,
            )
            try:
                build.run()
                self._write(build, ids)
            finally:
                build.close()
        return 0

    def _write(self, build: Build, ids: Ids) -> None:
        if self._target.output is not None:
            reading = saving.read_rootfs(build.stacked(), ids, build.point, name=self._gunfile.name)
            saved = saving.save(reading, self._target.output)
            self._told(saved.left_out())
            if any(step.kind in (ENV, WORKDIR, CMD) for step in self._gunfile.steps):
                self.note(
                    "Env, Workdir and Cmd are not kept in an archive: oci:DIR is an image that has them", "warning"
                )
            self.note(f"made {self._target.output.path}: {saved.entries} entries, {saved.written_bytes / 1e6:.1f} MB")
            return
        try:
            with Layout(self._target.path, self._target.tag) as made:
                made.add(saving.read_rootfs(build.base.rootfs, ids, build.point, name=self._gunfile.using.name))
                for one in build.done:
                    if one.layer is not None:
                        made.add(layers.read(one.layer, ids, self._gunfile.name))
                digest = made.finish(build.image(layout.architecture(build.base.architecture)))
        except OSError as error:
            raise saving.failed(f"oci:{self._target.path}", error) from None
        tag = f":{self._target.tag}" if self._target.tag else ""
        self.note(f"made oci:{self._target.path}{tag}: sha256:{digest}")

    def _told(self, left_out: str) -> None:
        if left_out:
            self.note(left_out, "warning")


def _no_stdin() -> None:
    """No step reads what is typed, or the rest of a Gunfile."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
