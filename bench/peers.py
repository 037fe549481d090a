"""The ground that everybody runs on, and the peers' command lines."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from bench.measure import run

PODMAN_FLAGS = ["--rm", "--network", "host", "--cgroups", "disabled"]


class Ground:
    """A folder on tmpfs with unpacked trees, bundles, a store; and which peers work here."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = folder
        self.archives = sorted(
            rootfs.glob(f"alpine-minirootfs-*-{os.uname().machine}.tar.gz"),
            key=lambda path: [int(part) for part in path.name.split("-")[2].split(".")],
        )
        if not self.archives:
            raise SystemExit(
                f"bench: no alpine-minirootfs-*-{os.uname().machine}.tar.gz in {rootfs}; set GUNTAINER_TEST_ROOTFS"
            )
        self.archive = self.archives[-1]
        self.guntainer = str(Path(sys.executable).parent / "guntainer")
        self.absent: dict[str, str] = {}
        """Peers that were asked for and can not be had, and why."""
        self._tried: set[str] = set()
        os.environ["XDG_RUNTIME_DIR"] = str(folder / "run")
        os.environ["TMPDIR"] = str(folder / "tmp")
        os.environ["GUNTAINER_STORE"] = str(folder / "store")
        for name in ("run", "tmp", "trees"):
            (folder / name).mkdir(mode=0o700)
        self.trees = [self._unpack(archive) for archive in self.archives]
        self.tree = self.trees[-1]
        for archive in self.archives:
            run([self.guntainer, "run", str(archive), "/bin/true"])

    def _unpack(self, archive: Path) -> Path:
        tree = self.folder / "trees" / archive.name.split("-")[2]
        tree.mkdir()
        subprocess.run(["tar", "-xzf", archive, "-C", tree, "--no-same-owner"], check=True)
        return tree

    def has(self, name: str) -> bool:
        """Whether a peer works here. It is tried when a case first asks: podman leaves a process in our control group, in which
        others could then have no groups."""
        if name not in self._tried:
            self._tried.add(name)
            why = self._refusal(name)
            if why:
                self.absent[name] = why
        return name not in self.absent

    def installed(self, name: str) -> bool:
        """Whether there is such a program."""
        there = shutil.which(name) is not None
        if not there:
            self.absent[name] = "not installed"
        return there

    def _refusal(self, name: str) -> str:
        if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            return "not installed"
        try:
            if name == "podman":
                for tag, archive in enumerate(self.archives):
                    run([*self._podman(), "import", str(archive), f"alpine-{tag}"])
                run(self.podman(["/bin/true"]))
            else:
                run(self.bwrap("/bin/true") if name == "bwrap" else self.oci(name, "probe", ["/bin/true"]))
        except RuntimeError as error:
            return str(error).splitlines()[0][-200:]
        return ""

    def bwrap(self, *command: str, tree: Path | None = None) -> list[str]:
        """bwrap with all the namespaces that we make but the network, and its own /proc, /dev, /tmp."""
        flags = [f"--unshare-{kind}" for kind in ("user", "pid", "ipc", "uts", "cgroup")]
        root = str(tree or self.tree)
        return [
            "bwrap",
            *flags,
            "--ro-bind",
            root,
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
            *command,
        ]

    def bundle(self, command: list[str]) -> Path:
        """An OCI bundle on the unpacked tree."""
        path = self.folder / f"bundle-{abs(hash(tuple(command)))}"
        if not path.exists():
            path.mkdir()
            program = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin") or "crun"
            subprocess.run([program, "spec", "--rootless"], cwd=path, check=False)
            if not (path / "config.json").exists():
                return path
            config = json.loads((path / "config.json").read_text())
            config["process"] |= {"args": command, "terminal": False}
            config["root"] = {"path": str(self.tree), "readonly": True}
            config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": os.getuid(), "size": 1}]
            config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": os.getgid(), "size": 1}]
            (path / "config.json").write_text(json.dumps(config))
        return path

    def oci(self, program: str, name: str, command: list[str]) -> list[str]:
        more = ["--cgroup-manager", "disabled"] if program == "crun" else []
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") or program
        return [path, "--root", str(self.folder / program), *more, "run", "--bundle", str(self.bundle(command)), name]

    def _podman(self) -> list[str]:
        root = self.folder / "podman"
        return ["podman", "--root", str(root), "--runroot", str(root) + "-run", "--cgroup-manager", "cgroupfs"]

    def podman(self, command: list[str], tag: int | None = None) -> list[str]:
        tag = len(self.archives) - 1 if tag is None else tag
        return [*self._podman(), "run", *PODMAN_FLAGS, f"alpine-{tag}", *command]

    def many(self, line: list[str], count: int, parallel: int) -> str:
        """A shell line that runs `line` many times; {} in it becomes the number."""
        quoted = " ".join(word if word == "{}" else shlex.quote(word) for word in line)
        return f"seq {count} | xargs -P{parallel} -I{{}} {quoted}"

    def close(self) -> None:
        if "podman" in self._tried and self.has("podman"):
            subprocess.run([*self._podman(), "rmi", "-af"], capture_output=True, check=False)
            subprocess.run([*self._podman(), "system", "migrate"], capture_output=True, check=False)
            subprocess.run(
                ["podman", "unshare", "rm", "-rf", str(self.folder / "podman")], capture_output=True, check=False
            )
            subprocess.run([*self._podman(), "system", "migrate"], capture_output=True, check=False)
        subprocess.run(["chmod", "-R", "u+rwX", str(self.folder)], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
