"""The fences of the house: who may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "guntainer"

# Rooms from the lowest storey to the highest; a module may import from its own storey and from below.
STOREYS = [
    [
        "value",
        "errors",
        "events",
        "json_lines",
        "capabilities",
        "interrupts",
        "descriptors",
        "jobs",
        "report",
        "report_text",
        "resources",
        "spec",
    ],
    ["kernel"],
    ["init"],
    [
        "exeseal",
        "hostids",
        "idmap",
        "offloading",
        "planner",
        "failures",
        "faults",
        "processes",
        "stopping",
        "deaf",
        "rootfs",
        "masking",
        "spellings",
        "globs",
        "secret_values",
        "errand",
        "workspace",
        "hosttree",
        "image",
        "naming",
        "runfolder",
        "resultsfolder",
        "wholefile",
        "skeleton",
        "space",
        "seccomp",
        "archive",
        "remote",
        "store",
        "opening",
        "cgroups",
        "assembly",
        "ladder",
        "refusals",
        "jobfile",
    ],
    [
        "launcher",
        "network",
        "stdio",
        "copying",
        "artifacts",
        "collecting",
        "belongings",
        "export",
        "group",
        "slots",
        "timing",
        "watcher",
        "nonblocking",
        "rawmode",
        "terminal",
        "handover",
        "waiting",
        "results",
        "hostfacts",
        "history",
        "container",
        "containers",
        "aftermath",
        "services",
        "preparation",
        "pack",
        "log",
        "output",
        "screen",
        "shown",
    ],
    ["supervisor", "session", "foreground", "builder", "doctor", "starter", "reports"],
    ["cli", "batching", "event_stream", "pytest_plugin", "__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
STDLIB_OF_THE_CHILD = {
    "os", "sys", "mmap", "ctypes", "_socket", "marshal", "_signal", "errno", "fcntl", "resource", "gc", "select", "struct", "__future__",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Modules that `path` imports at run time: not those below `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module.startswith("guntainer"):
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_down(path: Path) -> None:
    own = room(name_of(path))
    if not own:
        return  # the package itself: lazy names only
    for module in imports(path):
        other = room(module) if module.startswith("guntainer.") else ""
        if other in LEVEL:
            assert LEVEL[other] <= LEVEL[own], f"{name_of(path)} imports upward: {module}"


def test_every_room_has_a_storey() -> None:
    assert {room(name_of(p)) for p in modules()} - {""} <= set(LEVEL)


def test_every_room_is_on_the_map() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rows = "".join(line for line in text.splitlines() if line.startswith("| `"))
    listed = {word.rstrip("/") for word in rows.split("`")[1::2]}
    assert set(LEVEL) - {"__main__", "__init__"} <= listed
    assert {word for word in listed if (PACKAGE / word).is_dir() or (PACKAGE / f"{word}.py").exists()} >= set(LEVEL) - {
        "__main__"
    }


def test_no_cycles() -> None:
    graph = {name_of(p): {m for m in imports(p, top_only=True) if m.startswith("guntainer.")} for p in modules()}
    graph = {name: {m for m in found if m in graph and m != name} for name, found in graph.items()}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for below in graph[name]:
                walk(below, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("ctypes", {"kernel", "archive", "seccomp"}),
        ("libarchive", {"archive", "pack"}),
        (
            "anyio",
            {
                "offloading",
                "group",
                "launcher",
                "container",
                "preparation",
                "supervisor",
                "containers",
                "services",
                "belongings",
                "slots",
                "store",
                "stdio",
                "cli",
                "output",
                "batching",
                "event_stream",
                "session",
            },
        ),
        ("aiofiles", {"shown"}),
        ("structlog", {"log", "cli"}),
        ("rich", {"shown"}),
    ],
)
def test_libraries_stay_in_their_rooms(library: str, rooms: set[str]) -> None:
    users = {room(name_of(p)) for p in modules() if any(m.split(".")[0] == library for m in imports(p))}
    assert users <= rooms


@pytest.mark.parametrize("path", [p for p in modules() if room(name_of(p)) in ("kernel", "init")], ids=name_of)
def test_the_child_imports_little(path: Path) -> None:
    outside = {m.split(".")[0] for m in imports(path)} - {"guntainer"}
    assert outside <= STDLIB_OF_THE_CHILD


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {code}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


HEAVY = {
    "asyncio",
    "anyio",
    "structlog",
    "libarchive",
    "msgspec",
    "yaml",
    "rich",
    "subprocess",
    "json",
    "socket",
    "aiofiles",
}


def test_the_helper_is_light() -> None:
    assert not loaded("import guntainer.init.zygote") & (HEAVY | {"signal", "enum", "re", "typing", "dataclasses"})


def test_importing_the_package_is_light() -> None:
    assert not loaded("import guntainer") & (HEAVY | {"ctypes", "argparse", "typing"})


def test_version_is_light() -> None:
    assert not loaded("from guntainer.cli import main; main(['--version'])") & (
        HEAVY | {"ctypes", "argparse", "typing"}
    )


def test_words_open_no_file() -> None:
    for path in modules():
        if LEVEL.get(room(name_of(path)), 99) == 0:
            names = {
                n.func.id
                for n in ast.walk(ast.parse(path.read_text()))
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            }
            assert "open" not in names, path
