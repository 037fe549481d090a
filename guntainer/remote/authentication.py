"""Who asks: what is sent as Authorization, and what a server's challenge is answered with (RFC 9110 11, RFC 6750).

Registries give tokens for one repository and some minutes: `Keys` gets one when it is asked for, and another one when it has
expired, also in the middle of a download in another process: so it can be made of plain values, and into them.
"""

from __future__ import annotations

import time

from guntainer import errors
from guntainer.jobs.values import printable, quoted
from guntainer.remote.addresses import Address, is_loopback, parse_address
from guntainer.remote.connection import Broken, Wire, exchange
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_ANSWER = 1 << 20
_MOST_TOKEN = 64 << 10
_MOST_CHALLENGE = 16 << 10
_TRIES = 3
_EARLIER_S = 10.0
_DEFAULT_LIFE_S = 60.0  # where the server names none: the distribution spec's token page
_CLIENT = "guntainer"
_tokens: dict[tuple[str, str, str, Login], tuple[str, float]] = {}
"""(realm, service, scope, whose) → (token, until when on the monotonic clock)."""


class Login(Value):
    """What somebody is known by to a registry; empty: as anybody."""

    user: str = ""
    password: str = ""
    identity: str = ""
    """A refresh token (OAuth 2), instead of a password."""

    def __repr__(self) -> str:
        return f"Login({'given' if self else 'none'})"

    def __bool__(self) -> bool:
        return bool(self.user or self.password or self.identity)


NOBODY = Login()


class Keys:
    """What one origin is told with each request, and what more it may ask for.

    Args:
        authority: `HOST[:PORT]` of a registry, for messages; "": no registry, only `header` is ever sent.
        scope: of tokens: `repository:NAME:pull`.
        header: the Authorization to begin with, or "".
        plain: tokens may be asked for without TLS as well.
    """

    def __init__(
        self, authority: str = "", scope: str = "", login: Login = NOBODY, header: str = "", *, plain: bool = False
    ) -> None:
        self.authority = authority
        self.header = header
        self._scope = scope
        self._login = login
        self._plain = plain

    def __repr__(self) -> str:
        return f"Keys({self.authority!r})"

    def as_tuple(self) -> tuple[Any, ...]:
        login = self._login
        return (self.authority, self._scope, (login.user, login.password, login.identity), self.header, self._plain)

    @classmethod
    def from_tuple(cls, values: tuple[Any, ...]) -> Keys:
        authority, scope, (user, password, identity), header, plain = values
        return cls(authority, scope, Login(user=user, password=password, identity=identity), header, plain=plain)

    @property
    def logged_in(self) -> bool:
        return bool(self._login)

    def answer(self, fields: list[str], sent: str, wire: Wire) -> bool:
        """Take up a challenge (WWW-Authenticate); False where there is nothing more to say.

        Args:
            sent: the Authorization that was refused, or "".

        Raises:
            RemoteError: no token can be had.
        """
        if not self.authority:
            return False
        offers = challenges(fields)
        if "bearer" in offers:
            self.header = f"Bearer {self._token(offers['bearer'], sent.removeprefix('Bearer '), wire)}"
            return True
        if "basic" in offers and self._login.user and not sent.startswith("Basic "):
            self.header = basic(self._login.user, self._login.password)
            return True
        return False

    def _token(self, offer: dict[str, str], refused: str, wire: Wire) -> str:
        """One that is known and not refused, or a new one."""
        realm, service = offer.get("realm", ""), offer.get("service", "")
        key = (realm, service, self._scope, self._login)
        token, until = _tokens.get(key, ("", 0.0))
        if token and token != refused and time.monotonic() < until:
            return token
        address = self._realm(realm)
        answer = self._ask(address, service, self._scope, wire)
        found = answer.get("token") or answer.get("access_token")
        if not isinstance(found, str) or len(found) > _MOST_TOKEN or not _is_plain(found):
            raise errors.RemoteError(f"{address.shown}: the answer holds no token for {self.authority}")
        life = answer.get("expires_in")
        life_s = float(life) if isinstance(life, int) and 0 < life < 1 << 31 else _DEFAULT_LIFE_S
        _tokens[key] = (found, time.monotonic() + life_s - _EARLIER_S)
        return found

    def _realm(self, realm: str) -> Address:
        try:
            address, _ = parse_address(realm)
        except errors.UsageError:
            raise errors.RemoteError(
                f"{self.authority}: wants a token, and does not say from where (realm={quoted(realm)})"
            ) from None
        if not address.tls and not self._plain and not is_loopback(address.host):
            raise errors.RemoteError(
                f"{self.authority}: wants a token from {address.shown}, which is not encrypted", hint="it is not asked"
            )
        return address

    def _ask(self, address: Address, service: str, scope: str, wire: Wire) -> dict[str, Any]:
        """GET with a password or as anybody, POST with a refresh token: docker's token and OAuth 2 pages."""
        from urllib.parse import urlencode

        query = {"service": service, "scope": scope}
        headers: tuple[tuple[str, str], ...] = (("Accept", "application/json"),)
        if self._login.identity:
            query.update(grant_type="refresh_token", client_id=_CLIENT, refresh_token=self._login.identity)
            headers += (("Content-Type", "application/x-www-form-urlencoded"),)
            return _json_answer(address, headers, wire, self.authority, urlencode(query).encode())
        if self._login.user:
            headers += (("Authorization", basic(self._login.user, self._login.password)),)
        mark = "&" if "?" in address.target else "?"
        asked = address.replace(target=f"{address.target}{mark}{urlencode({k: v for k, v in query.items() if v})}")
        return _json_answer(asked, headers, wire, self.authority, None)


def _json_answer(
    address: Address, headers: tuple[tuple[str, str], ...], wire: Wire, authority: str, body: bytes | None
) -> dict[str, Any]:
    import json

    for attempt in range(_TRIES):
        try:
            response = exchange(address, headers, wire, method="POST" if body is not None else "GET", body=body)
            try:
                status, data = response.status, response.read_all(_MOST_ANSWER)
            finally:
                response.close()
            if status < 500 and status != 429:
                break
            raise Broken(f"answered {status}")
        except Broken as broken:
            if attempt == _TRIES - 1:
                raise errors.RemoteError(f"{address.shown}: no token for {authority}: {broken.why}") from None
            time.sleep(min(wire.stall_s, 0.2 * 4**attempt))
    if status in (400, 401, 403):
        raise errors.RemoteError(
            f"{address.shown}: the login for {authority} is refused ({status})",
            hint=f"log in: `podman login {authority}`",
        )
    try:
        found = json.loads(data) if status == 200 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise errors.RemoteError(f"{address.shown}: no token for {authority}: answered {status}, and nothing of use")
    return found


def _is_plain(text: str) -> bool:
    return all("!" <= c <= "~" for c in text)


def basic(user: str, password: str) -> str:
    """RFC 7617."""
    from base64 import b64encode

    return f"Basic {b64encode(f'{user}:{password}'.encode('utf-8', 'surrogateescape')).decode()}"


def challenges(fields: list[str]) -> dict[str, dict[str, str]]:
    """Scheme in lower case → its parameters: RFC 9110 11.6.1. Several may stand in one field; of each the first counts."""
    found: dict[str, dict[str, str]] = {}
    for field in fields:
        current: dict[str, str] = {}
        text = field[:_MOST_CHALLENGE]
        while text := text.lstrip(" \t,"):
            end = next((at for at, c in enumerate(text) if c in " \t,="), len(text))
            word, rest = text[:end].lower(), text[end:].lstrip(" \t")
            if not rest.startswith("="):
                current = {}
                found.setdefault(word, current)
                text = rest
                continue
            value, text = _value(rest[1:].lstrip(" \t="))
            current.setdefault(word, value)
    return found


def _value(text: str) -> tuple[str, str]:
    """A token or a quoted string, and what follows."""
    if not text.startswith('"'):
        end = next((at for at, c in enumerate(text) if c in " \t,"), len(text))
        return text[:end], text[end:]
    value, at = "", 1
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\"
        value += text[at : at + 1]
        at += 1
    return printable(value), text[at + 1 :]
