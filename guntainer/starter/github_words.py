"""`${{ … }}` of a GitHub workflow, in the words of a job file and of a shell. Pure.

A reference to the matrix stays, but where a shell would look into the value: there it is a variable. `env.NAME` is a variable of
the shell; a few facts of a runner are what they are in a container of ours; everything else has no meaning here, and is empty, as
an unknown name is on GitHub.
"""

from __future__ import annotations

import re

from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
MATRIX = re.compile(r"matrix\.([A-Za-z_][A-Za-z0-9_-]*)")
_ENV = re.compile(r"env\.([A-Za-z_][A-Za-z0-9_]*)")
SECRET = re.compile(r"secrets\.([A-Za-z_][A-Za-z0-9_]*)")
_LITERAL = re.compile(r"'((?:[^']|'')*)'|(true|false|-?[0-9]+(?:\.[0-9]+)?)")
WORKDIR = "/workspace"
_FACTS = {
    "runner.os": "Linux",
    "runner.temp": "/tmp",
    "github.workspace": WORKDIR,
    "github.event_name": "push",
    "github.action_path": WORKDIR,
}


class Words(Value):
    """What expressions of one job can speak of."""

    variables: Mapping[str, str] = {}
    """Name of its matrix → the variable that holds the value for a shell."""
    told: Callable[[str], None]
    """Takes a sentence for each expression that has no meaning here."""

    def text(self, text: str) -> str:
        """For a value: a reference to the matrix, or plain text."""
        return self._filled(text, "", _as_it_is, self._reference)

    def script(self, text: str) -> str:
        """For a shell: as it is put in there as it stands, `env.NAME` may be a variable."""
        return self._filled(text, _VARIABLE, _as_it_is, self._reference)

    def quoted(self, text: str) -> str:
        """As one word of a shell."""
        # a value that stood there itself would be looked into, and could end the word
        return f'"{self._filled(text, _VARIABLE, _escaped, lambda name: _VARIABLE.format(self.variables[name]))}"'

    def _filled(self, text: str, variable: str, plain: Callable[[str], str], reference: Callable[[str], str]) -> str:
        parts: list[str] = []
        end = 0
        for found in EXPRESSION.finditer(text):
            expression = found[1].strip()
            matrix, env = MATRIX.fullmatch(expression), _ENV.fullmatch(expression)
            if matrix and matrix[1] in self.variables:
                known = reference(matrix[1])
            elif env and variable:
                known = variable.format(env[1])
            else:
                known = plain(self._known(expression))
            parts += [plain(self._closed(text[end : found.start()])), known]
            end = found.end()
        return "".join([*parts, plain(self._closed(text[end:]))])

    def _closed(self, text: str) -> str:
        if "${{" in text:
            self.told('"${{" without its "}}"')
        return text.replace("${{", "$ {{")

    @staticmethod
    def _reference(name: str) -> str:
        return "${{ matrix." + name + " }}"

    def _known(self, expression: str) -> str:
        matrix, literal = MATRIX.fullmatch(expression), _LITERAL.fullmatch(expression)
        if expression in _FACTS:
            return _FACTS[expression]
        if literal:
            return (literal[1] or "").replace("''", "'") or literal[2] or ""
        if matrix:
            self.told(f"the matrix has no {matrix[1]}: empty, as on GitHub")
        else:
            self.told(f"${{{{ {expression[:80]} }}}} has no meaning here: left empty")
        return ""


_VARIABLE = "${{{}}}"


def _as_it_is(text: str) -> str:
    return text


def _escaped(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)


def variables(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Name of a matrix → a variable for its value that no other one is called.

    Args:
        taken: other variables of the job and its steps.
    """
    found: dict[str, str] = {}
    used = set(taken)
    for name in names:
        wanted = f"MATRIX_{name.upper().replace('-', '_')}"
        free = wanted
        number = 2
        while free in used:
            free = f"{wanted}_{number}"
            number += 1
        used.add(free)
        found[name] = free
    return found


def bare(condition: str) -> str:
    """A condition without the `${{ }}` that may be around it."""
    found = EXPRESSION.fullmatch(condition.strip())
    return (found[1] if found else condition).strip()
