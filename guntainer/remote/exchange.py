"""A request with all that may come between it and its answer: redirects, challenges, and refusals in words."""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.values import quoted
from guntainer.remote.addresses import Address, redirected
from guntainer.remote.connection import Broken, Response, Wire, exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.remote.authentication import Keys
    from guntainer.remote.connection import Headers

_MOST_REDIRECTS = 10
_MOST_ANSWERED = 2  # one token that was no longer good, and a new one
_REDIRECTS = (301, 302, 303, 307, 308)
_LATER = (408, 425, 429)
_NEVER = (501, 505)
_MOST_WAIT_S = 120.0


def ask(address: Address, headers: Headers, wire: Wire, keys: Keys | None = None, *, method: str = "GET") -> Response:
    """Send a request and follow it to an answer that is neither a redirect nor a challenge that can be answered.

    Args:
        headers: nothing secret: they go wherever it leads. What `keys` has goes to the first origin alone.

    Raises:
        Broken: another try may do better: the connection, 408, 425, 429 or 5xx.
        RemoteError: none will.
    """
    first = address.origin
    answered = 0
    for _ in range(_MOST_REDIRECTS + 1):
        known = keys if address.origin == first else None
        sent = known.header if known is not None else ""
        login = (("Authorization", sent),) if sent else ()
        response = exchange(address, (*headers, *login), wire, method=method)
        try:
            status = response.status
            if status in _REDIRECTS and response.header("location"):
                address = redirected(address, response.header("location"))
            elif status == 401 and answered < _MOST_ANSWERED and _answer(known, response, sent, wire):
                answered += 1
            elif status in _LATER or (status >= 500 and status not in _NEVER):
                raise Broken(f"answered {status}", after_s=_retry_after(response))
            else:
                kept, response = response, None  # type: ignore[assignment]
                return kept
        finally:
            if response is not None:
                response.close()
    raise errors.RemoteError(f"{address.shown}: redirected more than {_MOST_REDIRECTS} times")


def _answer(keys: Keys | None, response: Response, sent: str, wire: Wire) -> bool:
    return keys is not None and keys.answer(response.headers("www-authenticate"), sent, wire)


def _retry_after(response: Response) -> float:
    """Seconds of Retry-After, RFC 9110 10.2.3: a number or a date."""
    text = response.header("retry-after")
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = float(text)
    elif text:
        import time
        from email.utils import parsedate_to_datetime

        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    else:
        return 0.0
    if seconds > _MOST_WAIT_S:
        raise errors.RemoteError(
            f"{response.address.shown}: answered {response.status}: asks to be left alone for {seconds:.0f} s",
            hint="run it again then",
        )
    return max(seconds, 0.0)


def refusal(shown: str, status: int, keys: Keys | None = None, *, why: str = "") -> errors.RemoteError:
    """The error for an answer that is none of the good ones.

    Args:
        shown: what was asked for, without secrets.
        why: what the server has to say.
    """
    registry = keys.authority if keys is not None else ""
    login = f"log in: `podman login {registry}` or `docker login {registry}`" if registry else "give user and password"
    said = f" ({quoted(why)})" if why else ""
    if status == 401:
        if keys is not None and (keys.logged_in if registry else keys.header):
            return errors.RemoteError(f"{shown}: answered 401: the login that is known is refused{said}", hint=login)
        doubt = ", or is not there: registries do not say which" if registry else ""
        return errors.RemoteError(f"{shown}: answered 401: needs a login{doubt}{said}", hint=login)
    words = {
        403: ("may not be had by this user", login),
        404: ("is not there", "check its name"),
        407: ("the proxy needs a login", "give user and password in the proxy's URL"),
        410: ("is gone", "check its name"),
        451: ("is withheld for legal reasons", ""),
    }
    what, hint = words.get(status, ("that is no answer to go on with", ""))
    return errors.RemoteError(f"{shown}: answered {status}: {what}{said}", hint=hint)
