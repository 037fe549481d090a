"""What a Gunfile says: pure, no file is opened.

    # a comment, from where a word could begin to the end of the line
    Using "alpine.tar.gz"               what it begins from: whatever `guntainer run` takes. First, and once
    Env "LANG=C.UTF-8"                  or Env LANG=C.UTF-8
    Workdir "/src"
    Copy "src" "/src"                   from the Gunfile's folder
    Exec "apk add make"                 /bin/sh -e -c
    Cmd ["make", "test"]                or Cmd "text", for a shell

One instruction a line; a backslash at its end continues it. "…" has escapes, '…' has none. All mistakes are told at once.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.builder.words import Mistake, instructions
from guntainer.jobs import sources, values
from guntainer.jobs.problems import Problems
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.builder.words import Word
    from guntainer.jobs.model import Source

LIMIT_BYTES = 1 << 20
USING, EXEC, COPY, ENV, WORKDIR, CMD = INSTRUCTIONS = ("Using", "Exec", "Copy", "Env", "Workdir", "Cmd")
_DOCKERS = {"from": USING, "run": EXEC, "add": COPY, "entrypoint": CMD}
_SHELL = ("/bin/sh", "-c")


class Step(Value):
    """One instruction after Using."""

    line: int
    kind: str
    """One of INSTRUCTIONS."""
    words: tuple[str, ...]
    """Exec: the text. Copy: source, destination. Env: name, value. Workdir: the path. Cmd: argv."""

    def __str__(self) -> str:
        """As it is written, on one line: for an image's history."""
        if self.kind == ENV:
            return f"Env {_quoted('='.join(self.words))}"
        if self.kind == CMD:
            return f"Cmd [{', '.join(map(_quoted, self.words))}]"
        return " ".join([self.kind, *map(_quoted, self.words)])


def _quoted(text: str) -> str:
    return '"' + values.printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


class Gunfile(Value):
    """A Gunfile."""

    name: str
    """For messages."""
    using: Source
    using_line: int
    steps: tuple[Step, ...] = ()


def load(data: bytes, name: str, base: str) -> Gunfile:
    """Read a Gunfile.

    Args:
        name: of the file, for messages.
        base: the folder that the paths in it are seen from: absolute.

    Raises:
        JobFileError: with every mistake, each with its line.
    """
    return _Reading(name, base).read(data)


class _Reading:
    def __init__(self, name: str, base: str) -> None:
        self._name = name
        self._base = base
        self._problems = Problems()
        self._using: tuple[int, Source] | None = None
        self._begun = False
        self._steps: list[Step] = []

    def read(self, data: bytes) -> Gunfile:
        for line, words in instructions(self._text(data), self._tell):
            self._instruction(line, words)
            self._begun = True
        if not self._begun:
            self._tell(1, 'it is empty: expected Using "rootfs.tar.gz" first')
        self._problems.raise_all(self._name, lambda _path: (1, 0))
        assert self._using is not None
        return Gunfile(name=self._name, using=self._using[1], using_line=self._using[0], steps=tuple(self._steps))

    def _tell(self, line: int, message: str) -> None:
        self._problems.add((), message, (line, 0))

    def _text(self, data: bytes) -> str:
        try:
            if len(data) > LIMIT_BYTES:
                raise Mistake(1, f"larger than {LIMIT_BYTES >> 20} MiB")
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise Mistake(data.count(b"\n", 0, error.start) + 1, "not UTF-8") from None
            if "\0" in text:
                raise Mistake(text.count("\n", 0, text.index("\0")) + 1, "a NUL character")
        except Mistake as mistake:
            raise errors.JobFileError((f"{self._name}:{mistake.line}: {mistake.message}",)) from None
        return text.replace("\r\n", "\n")

    def _instruction(self, line: int, words: list[Word]) -> None:
        """Args: words: none where its line could not be read, which was told."""
        kind = words[0] if words else ""
        try:
            if not isinstance(kind, str) or (words and kind not in INSTRUCTIONS):
                raise errors.UsageError(_unknown(kind))
            if self._begun and kind == USING:
                raise errors.UsageError("Using comes once, as the first instruction")
            if not self._begun and words and kind != USING:
                self._tell(line, f'Using "rootfs.tar.gz" must come first, before {kind}')
            if kind == USING:
                self._using = (line, sources.parse(_using(words[1:])[0], self._base))
            elif words:
                self._steps.append(Step(line=line, kind=kind, words=_READERS[kind](words[1:])))
        except errors.UsageError as error:
            self._tell(line, f"{kind}: {error}" if kind in INSTRUCTIONS else str(error))


def _unknown(word: Word) -> str:
    if not isinstance(word, str):
        return f"expected an instruction, one of {', '.join(INSTRUCTIONS)}"
    meant = _DOCKERS.get(word.lower()) or next((one for one in INSTRUCTIONS if one.lower() == word.lower()), "")
    near = f" (did you mean {meant}?)" if meant else values.near(word, INSTRUCTIONS)
    return f"unknown instruction {values.quoted(word)}{near or ': one of ' + ', '.join(INSTRUCTIONS)}"


# -- what an instruction takes


def _texts(words: list[Word], count: int, expected: str) -> tuple[str, ...]:
    found = tuple(values.check_text(word) for word in words if isinstance(word, str))
    if len(found) != count or len(words) != count:
        raise errors.UsageError(f"expected {expected}")
    if not all(found):
        raise errors.UsageError(f"an empty text; expected {expected}")
    return found


def _using(words: list[Word]) -> tuple[str, ...]:
    return _texts(words, 1, 'one text: Using "alpine.tar.gz"')


def _exec(words: list[Word]) -> tuple[str, ...]:
    return _texts(words, 1, 'one text in quotes: Exec "apk add make"')


def _copy(words: list[Word]) -> tuple[str, ...]:
    source, target = _texts(words, 2, 'two texts: Copy "from" "/to"')
    if source.startswith("/"):
        raise errors.UsageError(f"{values.quoted(source)}: expected a path seen from the Gunfile's folder")
    depth = 0
    for part in source.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            raise errors.UsageError(f"{values.quoted(source)} leads out of the Gunfile's folder")
    return source, target


def _env(words: list[Word]) -> tuple[str, ...]:
    text = _texts(words, 1, 'one text: Env "NAME=value"')[0]
    name, value = values.parse_env(text)
    if value is None:
        raise errors.UsageError(f"{values.quoted(text)}: expected NAME=value")
    return name, value


def _workdir(words: list[Word]) -> tuple[str, ...]:
    path = _texts(words, 1, 'one path: Workdir "/src"')[0]
    if not path.startswith("/"):
        raise errors.UsageError(f"{values.quoted(path)}: expected an absolute path")
    return (path,)


def _cmd(words: list[Word]) -> tuple[str, ...]:
    if len(words) == 1 and isinstance(words[0], list) and words[0] and words[0][0]:
        return tuple(map(values.check_text, words[0]))
    return (*_SHELL, *_texts(words, 1, 'a list or one text: Cmd ["make", "test"]'))


_READERS: dict[str, Callable[[list[Word]], tuple[str, ...]]] = {
    EXEC: _exec,
    COPY: _copy,
    ENV: _env,
    WORKDIR: _workdir,
    CMD: _cmd,
}
