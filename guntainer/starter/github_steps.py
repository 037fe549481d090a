"""The steps of a job of a GitHub workflow, as one script. Pure.

Each step is a subshell, as each is a process of its own on GitHub: what it changes of its folder and variables ends with it.
Its script is read like a file, from a here-document: whatever it holds, or leaves open, is nothing of the other steps.
"""

from __future__ import annotations

import re

from guntainer.jobs.parse import meaning
from guntainer.starter import toml
from guntainer.starter.github_tests import FALSE, TRUE, test_of
from guntainer.starter.github_words import Words, bare
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.jobs.problems import Path

    Warn = Callable[[Path, str], None]

_MOST_SHOWN = 100
BASH = ("bash", "-e", "-c")
_SHELLS = {"bash": "bash", "sh": "sh", "": ""}
_CHECKOUT = "actions/checkout"
_UPLOAD = "actions/upload-artifact"
_END = "END_OF_STEP"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOLD = f"# Each step is read like a script of its own, up to its {_END}."


class Steps(Value):
    """What the steps of a job come to."""

    lines: tuple[str, ...]
    """Of the script."""
    bash: bool = False
    """One of them needs bash."""
    artifacts: tuple[str, ...] = ()
    runs: bool = False
    """There is anything to run."""


class _Reading:
    def __init__(self, words: Words, warn: Warn, defaults: dict[str, object]) -> None:
        self.words = words
        self.warn = warn
        self.defaults = defaults
        self.lines: list[str] = []
        self.scripts: list[str] = []
        self.ends: list[int] = []
        """How many lines there were when a step had ended."""
        self.artifacts: list[str] = []
        self.bash = False
        self.runs = False

    def step(self, step: dict[str, object], path: Path) -> None:
        name = str(step.get("name", "") or "")
        title = self.words.text(name) if name else ""
        if "uses" in step:
            self.used(step, path, title)
        elif isinstance(step.get("run"), str):
            self.run(step, path, title)
        else:
            self.left_out(path, title, "neither run nor uses")

    def left_out(self, path: Path, title: str, why: str, script: str = "") -> None:
        self.warn(path, f"left out: {why}")
        self.lines += _comment(f"{title + ': ' if title else ''}left out: {why}\n{script}".rstrip())

    def used(self, step: dict[str, object], path: Path, title: str) -> None:
        uses = str(step["uses"])
        action = uses.partition("@")[0]
        given = step.get("with")
        settings = given if isinstance(given, dict) else {}
        if action == _CHECKOUT and not {"repository", "ref", "path"} & set(settings):
            self.lines += _comment(f"{title + ': ' if title else ''}{uses}: the workspace is this folder")
        elif action == _UPLOAD and isinstance(settings.get("path"), str):
            patterns = [self.words.text(line.strip()) for line in settings["path"].splitlines()]
            self.artifacts += [one for one in patterns if one and ".." not in one.split("/")]
            self.lines += _comment(f"{title + ': ' if title else ''}{uses}: see artifacts")
        else:
            shown = "\n".join(f"  {key}: {value}" for key, value in settings.items() if isinstance(value, str))
            self.left_out((*path, "uses"), title, f"{uses}: actions do not run here; write what it does", shown)

    def run(self, step: dict[str, object], path: Path, title: str) -> None:
        script = str(step["run"])
        shell = str(step.get("shell") or self.defaults.get("shell") or "")
        condition, test = _scalar(meaning(step.get("if"))), ""
        if condition.strip():
            test, problem = self.condition(condition, path)
            if problem:
                self.left_out((*path, "if"), title, problem, script)
                return
        if shell not in _SHELLS and not shell.startswith(("python", "bash ", "sh ")):
            self.left_out((*path, "shell"), title, f"shell: {shell} is not known here", script)
            return
        if title:
            self.lines += _comment(title)
        self.runs = True
        self.scripts.append(script)
        if test:
            self.lines += [f"if {test}; then"]
        body = self.body(step, script, shell, path)
        if self.may_fail(step, path):
            # behind || or in a condition, -e would be off in the step as well
            self.lines += ["set +e  # the step may fail", "(", "set -e", *body, ")", "set -e"]
        else:
            self.lines += ["(", *body, ")"]
        self.ends.append(len(self.lines))
        if test:
            self.lines += ["fi"]

    def may_fail(self, step: dict[str, object], path: Path) -> bool:
        given = step.get("continue-on-error")
        value = meaning(given)
        if value is not None and not isinstance(value, bool):
            self.warn((*path, "continue-on-error"), f"left out: {str(given)[:_MOST_SHOWN]} is not known here")
        return value is True

    def body(self, step: dict[str, object], script: str, shell: str, path: Path) -> list[str]:
        lines: list[str] = []
        if shell.startswith("bash"):
            self.bash = True
            lines.append("set -o pipefail")
        folder = step.get("working-directory") or self.defaults.get("working-directory")
        if folder:
            lines.append(f"cd -- {self.words.quoted(str(folder))}")
        env = step.get("env")
        for name, value in (env if isinstance(env, dict) else {}).items():
            if isinstance(value, (list, dict)):
                self.warn((*path, "env", name), "left out: expected a text")
            elif not _NAME.fullmatch(name):
                self.warn((*path, "env", name), "left out: no shell can name a variable so")
            else:
                lines.append(f"export {name}={self.words.quoted(_scalar(value))}")
        python = shell.startswith("python")
        # no Python reads ${NAME} as a variable
        text = self.words.text(script) if python else self.words.script(script)
        inside = text.rstrip("\n").split("\n")
        end = next(word for word in (_END + "_" * n for n in range(len(inside) + 1)) if word not in inside)
        return [*lines, f"python3 - <<'{end}'" if python else f". /dev/fd/3 3<<'{end}'", *inside, end]

    def condition(self, condition: str, path: Path) -> tuple[str, str]:
        """(a test of the shell, or what is wrong); both empty: always."""
        if "always()" in condition:
            self.warn((*path, "if"), "runs only where the steps before it succeed: a script ends at the first failure")
        test = test_of(bare(condition), self.words.variables)
        if test is None:
            return "", f"if: {bare(condition)} is no condition that is known here"
        if test == FALSE:
            return "", "it is not for Linux" if "runner.os" in condition else "it never runs"
        return "" if test == TRUE else test, ""


def _comment(text: str) -> list[str]:
    # an expression in it would be looked at
    return toml.comment(text.replace("${{", "$ {{")).split("\n")


def _scalar(value: object) -> str:
    """A value's text, as YAML's writer wrote it."""
    if value is None:
        return ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


_FILES = ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
_TAKE_OVER = """\
take_over() {  # what a step has written for those behind it
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in [A-Za-z_]*=*) case ${line%%=*} in *[!A-Za-z0-9_]*) ;; *) export "$line";; esac;; esac
  done <"$GITHUB_ENV"
  while IFS= read -r line || [ -n "$line" ]; do PATH=$line:$PATH; done <"$GITHUB_PATH"
  : >"$GITHUB_PATH"
}"""


def _prologue(lines: list[str], scripts: list[str], ends: list[int]) -> list[str]:
    """What scripts of a runner count on; `lines` get what has to stand between them, at the ends of steps."""
    script = "\n".join(scripts)
    before = [_TOLD] if scripts else []
    if re.search(r"\bsudo\b", script):
        before.append('command -v sudo >/dev/null || sudo() { "$@"; }  # one is root here')
    used = [name for name in _FILES if name in script]
    if used:
        before += [f"export {name}=$(mktemp)" for name in (_FILES[:2] if set(used) & set(_FILES[:2]) else ())]
        before += [f"export {name}=/dev/null" for name in used if name in _FILES[2:]]
    if set(used) & set(_FILES[:2]):
        before += _TAKE_OVER.split("\n")
        for at in reversed(ends):
            lines.insert(at, "take_over")
    return before


def read(steps: list[object], path: Path, words: Words, warn: Warn, defaults: dict[str, object]) -> Steps:
    """The steps of one job.

    Args:
        defaults: of `run`: shell and working-directory.
        warn: takes the path of what can not be carried over, and why.
    """
    reading = _Reading(words, warn, defaults)
    for number, step in enumerate(steps):
        if isinstance(step, dict):
            reading.step(step, (*path, number))
        else:
            reading.left_out((*path, number), "", "it is no table")
    return Steps(
        lines=(*_prologue(reading.lines, reading.scripts, reading.ends), *reading.lines),
        bash=reading.bash,
        artifacts=tuple(reading.artifacts),
        runs=reading.runs,
    )
