"""A Gunfile's characters → the words of its instructions: bare ones, quoted ones, lists of these. Pure."""

from __future__ import annotations

from guntainer.jobs import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Word = str | list[str]

_ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t", "r": "\r", "$": "$"}
_HEX = frozenset("0123456789abcdefABCDEF")
_ENDS = frozenset(" \t\n[],\"'")


class Mistake(Exception):
    """What is wrong at a place."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def instructions(text: str, tell: Callable[[int, str], None]) -> list[tuple[int, list[Word]]]:
    """(line, words) of each instruction; no words of one with a mistake, after which it goes on with the next line."""
    scanner = _Scanner(text)
    found: list[tuple[int, list[Word]]] = []
    while scanner.more():
        try:
            words = scanner.words()
            if words:
                found.append((scanner.began, words))
        except Mistake as mistake:
            tell(mistake.line, mistake.message)
            scanner.skip()
            found.append((mistake.line, []))
    return found


class _Scanner:
    """A Gunfile's characters, read once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0
        self.line = 1
        self.began = 1
        """The line of the instruction that was read last."""

    def more(self) -> bool:
        return self.at < len(self._text)

    def _next(self) -> str:
        """The character at hand; "" at the end."""
        return self._text[self.at : self.at + 1]

    def _take(self) -> str:
        one = self._next()
        self.at += 1
        self.line += one == "\n"
        return one

    def skip(self) -> None:
        """To the end of the instruction."""
        while self.more():
            continued = self._text.startswith("\\\n", self.at)
            if self._take() == "\n":
                return
            if continued:
                self._take()

    def words(self) -> list[Word]:
        """Those of one instruction, and its end."""
        found: list[Word] = []
        while True:
            self._blanks()
            one = self._next()
            if one in ("", "\n"):
                self._take()
                return found
            if one == "#":  # where a word could begin, as in sh(1): a text that begins so is quoted
                while self.more() and self._take() != "\n":
                    pass
                return found
            if not found:
                self.began = self.line
            found.append(self._list() if one == "[" and found else self._word())

    def _blanks(self) -> None:
        while True:
            if self._next() in (" ", "\t") and self.more():
                self._take()
            elif self._text.startswith("\\\n", self.at):
                self._take()
                self._take()
            else:
                return

    def _word(self) -> str:
        one = self._next()
        if one in "\"'":
            text = self._quoted()
            if (
                self.more()
                and self._next() not in (" ", "\t", "\n", ",", "]")
                and not self._text.startswith("\\\n", self.at)
            ):
                raise Mistake(self.line, f"expected a blank after {values.quoted(text)}")
            return text
        if one in "[],":
            raise Mistake(self.line, f"unexpected {one}")
        start = self.at
        while self.more() and self._next() not in _ENDS and not self._text.startswith("\\\n", self.at):
            self._take()
        if self.more() and self._next() in "\"'":
            raise Mistake(self.line, f"a quote inside of {values.quoted(self._text[start : self.at])}: quote it all")
        return self._text[start : self.at]

    def _quoted(self) -> str:
        line, quote = self.line, self._take()
        found = ""
        while True:
            one = self._next()
            if one in ("", "\n"):
                raise Mistake(line, f"a text is not closed: {quote} is missing at the end of the line")
            self._take()
            if one == quote:
                return found
            found += self._escape() if one == "\\" and quote == '"' else one

    def _escape(self) -> str:
        one = self._next()
        if one == "\n":
            self._take()
            return ""
        if one in ("x", "u"):
            digits = self._text[self.at + 1 : self.at + (3 if one == "x" else 5)]
            if len(digits) == (2 if one == "x" else 4) and not set(digits) - _HEX and int(digits, 16):
                self.at += 1 + len(digits)
                return chr(int(digits, 16))
        elif one in _ESCAPES:
            self._take()
            return _ESCAPES[one]
        raise Mistake(self.line, f"unknown escape \\{one}: a backslash is written \\\\, or the text in '…'")

    def _list(self) -> list[str]:
        line = self.line
        self._take()
        found: list[str] = []
        while True:
            self._blanks()
            if self._next() == "]" and not found:
                self._take()
                return found
            if self._next() not in ('"', "'") or not self.more():
                raise Mistake(line, 'expected texts in quotes between the brackets: ["make", "test"]')
            found.append(self._word())
            self._blanks()
            one = self._take()
            if one == "]":
                return found
            if one != ",":
                self.line -= one == "\n"
                self.at -= 1
                raise Mistake(line, "a list is not closed: ] or , is missing")
