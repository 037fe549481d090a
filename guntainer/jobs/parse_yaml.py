"""A YAML job file as plain objects, read as YAML 1.2's core schema has it.

libyaml composes the nodes, which know their places; the objects are made here, because PyYAML's own constructor turns
`no` into False and 3.10 into 3.1, keeps the last of two equal keys, and lets a few aliases grow into gigabytes.
"""

from __future__ import annotations

import yaml
from yaml._yaml import CParser
from yaml.resolver import BaseResolver

from guntainer.jobs.parse import DEEPEST, Document, resolve
from guntainer.jobs.problems import Problems, fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.jobs.problems import Path, Place

_MOST_REPEATED = 100_000  # nodes that aliases may add, all together
_CORE = "tag:yaml.org,2002:"
_UNTAGGED = ("!plain", "!quoted", "!table", "!list")


class _Composer(CParser, BaseResolver):
    """libyaml's parser with tags that only tell how a node was written."""

    def __init__(self, source: str) -> None:
        CParser.__init__(self, source)
        BaseResolver.__init__(self)

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: object) -> str:
        if kind is yaml.ScalarNode:
            return "!plain" if isinstance(implicit, tuple) and implicit[0] else "!quoted"
        return "!table" if kind is yaml.MappingNode else "!list"


class _StopError(Exception):
    """A node that ends the reading: (message, node)."""


def parse_yaml(source: str, name: str, problems: Problems) -> Document:
    """Read a YAML text; see `parse.parse`."""
    try:
        node = _Composer(source).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise fail(name, _mark_place(error.problem_mark or error.context_mark), _describe(error, source)) from None
    except yaml.YAMLError as error:
        raise fail(name, (1, 0), f"not valid YAML: {' '.join(str(error).split())}") from None
    if node is None:
        raise fail(name, (1, 0), "the file is empty: expected at least one job, jobs: {NAME: …}")
    builder = _Builder(problems)
    try:
        root = builder.build(node, ())
    except _StopError as stop:
        message, where = stop.args
        raise fail(name, _place(where), message) from None
    return Document(root, lambda path: _locate(node, path))


def _mark_place(mark: yaml.Mark | None) -> Place:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 0)


def _place(node: yaml.Node) -> Place:
    return _mark_place(node.start_mark)


def _describe(error: yaml.MarkedYAMLError, source: str) -> str:
    line, column = _mark_place(error.problem_mark)
    lines = source.split("\n")
    rest = lines[line - 1][column - 1 :] if line <= len(lines) and column else ""
    if rest.startswith("\t"):
        return "not valid YAML: a tab where only spaces may indent"
    parts = [part for part in (error.context, error.problem) if part]
    return f"not valid YAML: {', '.join(parts)}"


class _Builder:
    """Makes plain objects of nodes, with a bound on what aliases may cost."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._told: set[int] = set()
        self._repeated = 0

    def build(self, node: yaml.Node, path: Path) -> object:
        self._count(node)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if len(self._open) > DEEPEST:
            raise _StopError(f"nested more than {DEEPEST} levels deep", node)
        if id(node) in self._open:
            raise _StopError("an alias inside of its own anchor", node)
        if node.tag not in _UNTAGGED and node.tag not in (_CORE + "map", _CORE + "seq"):
            raise _StopError(f"the tag {_shown(node.tag)} is not known: expected plain YAML", node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._table(node, path)
        finally:
            self._open.discard(id(node))

    def _count(self, node: yaml.Node) -> None:
        if id(node) in self._seen:
            self._repeated += 1
            if self._repeated > _MOST_REPEATED:
                raise _StopError("its aliases repeat more than a job file can need: an alias bomb", node)
        self._seen.add(id(node))

    def _table(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        table: dict[str, object] = {}
        merged: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _StopError("a key must be a text", key_node)
            key = str(key_node.value)
            if key == "<<" and key_node.tag == "!plain":
                for name, value in self._merge(value_node, path):
                    merged.setdefault(name, value)
            elif key in table:
                # told once, not for every alias too
                if id(key_node) not in self._told:
                    self._told.add(id(key_node))
                    self._problems.add((*path, key), "this key is there twice", _place(key_node))
            else:
                table[key] = self.build(value_node, (*path, key))
        for name, value in merged.items():  # <https://yaml.org/type/merge.html>: own keys win
            table.setdefault(name, value)
        return table

    def _merge(self, node: yaml.Node, path: Path) -> list[tuple[str, object]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: list[tuple[str, object]] = []
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise _StopError('"<<" merges a table or a list of tables', source)
            built = self.build(source, path)
            assert isinstance(built, dict)
            found.extend(built.items())
        return found


def _shown(tag: str) -> str:
    return "!!" + tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag


def _scalar(node: yaml.ScalarNode) -> object:
    text = str(node.value)
    if node.tag in ("!quoted", _CORE + "str"):
        return text
    if node.tag == "!plain" or node.tag in (_CORE + "int", _CORE + "float", _CORE + "bool", _CORE + "null"):
        return resolve(text)
    raise _StopError(f"the tag {_shown(node.tag)} is not known: expected plain YAML", node)


def _locate(node: yaml.Node, path: Path) -> Place:
    """The place of the key or item at `path`, or of the innermost thing around it."""
    place = _place(node)
    for part in path:
        step = _step(node, part)
        if step is None:
            break
        node, place = step
    return place


def _step(node: yaml.Node, part: str | int) -> tuple[yaml.Node, Place] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], _place(node.value[part])
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == part:
            return value, _place(key)
    for key, value in node.value:
        if key.value == "<<":
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                step = _step(source, part)
                if step is not None:
                    return step
    return None
