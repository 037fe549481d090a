"""`guntainer run [OPTIONS] ROOTFS [COMMAND [ARGS…]]`: one container in the foreground."""

from __future__ import annotations

import os

from guntainer import errors, report
from guntainer.cli import Notes, options, show, write
from guntainer.cli.run_job import job_of
from guntainer.cli.run_options import OPTIONS, parser
from guntainer.jobs.model import NO_LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.cli.options import Options
    from guntainer.jobs.model import Job
    from guntainer.ladder import Rung
    from guntainer.rootfs import Rootfs


def main(words: list[str]) -> int:
    read = options.read(OPTIONS, words)
    if read is None or read[0].help or not read[1]:
        from guntainer.cli.parsing import read_slowly

        read = read_slowly(parser(), words, positional="ROOTFS")
        if read is None:
            return 0
    args, rest = read
    job = job_of(args, rest[0], rest[1:])
    return _Run(args, job).run()


class _Run:
    """One run: lease the rootfs, launch, wait, clean up, in that order and back."""

    def __init__(self, args: Options, job: Job) -> None:
        self._args = args
        self._job = job
        self.note = Notes(args)
        self._folder: Any = None
        self._limiter: Any = None
        self._limited = False
        self._committing: Any = None
        if args.commit is not None or args.commit_layer is not None:
            from guntainer.cli.committing import Committing

            self._committing = Committing(args, job)

    def run(self) -> int:
        from guntainer import descriptors, idmap, interrupts, opening, runfolder
        from guntainer.kernel import syscalls

        # as the caller: inside of a user namespace the answers are root's
        opening.check_sources(self._job)
        syscalls.join_session_keyring()
        self._ids = idmap.enter(idmap.open_ids(self._args.userns))
        if self._ids.why:
            self.note(f"one id: {self._ids.why}")
        self.note(f"ids: {self._ids.describe()}", "debug")
        descriptors.allow(descriptors.LEAST + len(self._job.mounts))
        runfolder.remove_stale()
        try:
            if self._job.network == "private":
                self._ask_host(self._check_network)
            if self._job.limits != NO_LIMITS:
                self._ask_host(self._limit)
            with self._rootfs() as rootfs:
                return self._in(*rootfs)
        finally:
            # from here on there is only clean-up, which is done to its end
            interrupts.ignore()
            if self._limiter is not None:
                self._limiter.close()
            if self._folder is not None:
                self._folder.remove()

    def _ask_host(self, ask: Callable[[], None]) -> None:
        """Before anything is begun: can it be had here?

        A dry run asks the same, and only warns of a refusal: its plan is worth reading on a machine that is not the one that it
        is meant for, so it is shown all the same, and the exit code stays 0.

        Raises:
            HostError: no; not of a dry run.
        """
        try:
            ask()
        except errors.HostError as error:
            if not self._args.dry_run:
                raise
            self.note(f"a run would be refused here: {error}", "warning")

    def _check_network(self) -> None:
        from guntainer.network import tools

        tools.check(self._job)

    def _limit(self) -> None:
        from guntainer.cgroups.limiter import Limiter

        self._limiter = Limiter(alone=self._ids.kind == "single")
        for text in self._limiter.grant(self._job.limits).notes:
            self.note(text, "warning")
        self._limited = True

    def folder(self) -> Any:
        """The run folder, made when it is first asked for."""
        if self._folder is None:
            from guntainer.runfolder import RunFolder

            self._folder = RunFolder().__enter__()
        return self._folder

    def _rootfs(self) -> Any:
        from guntainer.opening import open_rootfs

        progress = self._progress if os.isatty(2) and not self._args.quiet else None
        return open_rootfs(self._job, self._args.store, self._ids, self.folder, progress, self._go_on, self.note)

    def _go_on(self) -> None:
        """What comes after an unpack, as far as it can be had while another process unpacks."""
        import guntainer.foreground
        from guntainer import assembly

        assert guntainer.foreground
        if self._job.cache:
            from guntainer.store.lookup import open_store

            assembly.compile_early(self._job, open_store(self._args.store).path, self._ids)

    def _progress(self, done: int, total: int) -> None:
        """Of an unpack, on one line of the terminal that is gone when it is over."""
        if total and done < total:
            write(f"\runpacking {os.path.basename(self._job.rootfs.name)}: {done * 100 // total} %\x1b[K")
        else:
            write("\r\x1b[K")

    def _in(self, rootfs: Rootfs, shared: str) -> int:
        from guntainer import assembly

        self._job = rootfs.job(self._job)
        ground = assembly.Ground(shared, self.folder, self._ids)
        ground.limiter = self._limiter if self._limited else None
        terminal = self._wants_terminal()
        if self._args.dry_run:
            return self._dry_run(rootfs, ground, terminal)
        from guntainer.foreground import Foreground

        if self._committing is not None:
            self._committing.redirect()
        container = Foreground(self._job, rootfs, ground, terminal=terminal, descend=self._descend, note=self.note)
        try:
            exit_ = container.run()
        except errors.SetupError as error:
            from guntainer import space

            space.explain(error, container.layer)
            raise
        if exit_.reason in (report.TIMEOUT, report.OOM, report.PIDS):
            self.note(f"{self._job.id}: {exit_.describe()}", "warning")
        if exit_.code:
            from guntainer import space

            text = space.note(container.layer)
            if text:
                self.note(text, "warning")
        if self._committing is not None:
            self._committing.after(exit_.code, self._job, rootfs, container.layer, ground, self.note)
        if self._args.keep:
            self._keep(container.layer)
        return exit_.code

    def _descend(self, rung: Rung) -> None:
        if self._args.require_isolation == "full":
            from guntainer import ladder

            ladder.refuse(rung)
        if self._committing is not None:
            self._committing.descend(rung)
        self.note(rung.note, "warning")

    def _wants_terminal(self) -> bool:
        both = os.isatty(0) and os.isatty(1)
        if self._args.tty and not both:
            self.note("-t: stdin and stdout are not a terminal; going on with a pseudo-terminal of its own", "warning")
        # A pseudo-terminal has one output only, so nobody gets one unasked whose stderr goes elsewhere.
        return bool(self._args.tty or (both and os.isatty(2) and not self._args.no_tty))

    def _dry_run(self, rootfs: Rootfs, ground: Any, terminal: bool) -> int:
        from guntainer import assembly, planner

        made = assembly.assemble(
            self._job,
            rootfs,
            ground,
            planner.Stdio(terminal=0) if terminal else planner.Stdio(),
            terminal=terminal,
            init="reaper" if self._job.init else "",
            network=0 if self._job.network == "private" else -1,
            cgroup=0 if ground.granted(self._job.limits).limits.wanted else -1,
        )
        show(f"with ids {self._ids.describe()}\n" if self._ids.inside else "")
        show(planner.describe(made.plan))
        return 0

    def _keep(self, layer: str) -> None:
        if not layer:
            self.note("--keep: nothing to keep, the writable layer was in memory", "warning")
            return
        folder, self._folder = self._folder, None
        folder.keep()
        removal = f"; to remove it: guntainer unshare rm -rf {os.path.dirname(layer)}" if self._ids.inside else ""
        self.note(f"kept {layer}/upper{removal}", "warning")
