"""Logins for registries, from where `podman login` and `docker login` keep them: containers-auth.json(5).

Files are only read. A credential helper is run as they run it: `docker-credential-NAME get`, the registry on its stdin.
"""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.jobs.references import DOCKER_HUB, ImageReference
from guntainer.remote.authentication import NOBODY, Login

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_MOST_BYTES = 8 << 20
_HELPER_S = 30.0
_HUB_KEY = "https://index.docker.io/v1/"
_IDENTITY = "<token>"  # docker-credential-helpers: the "user name" of a refresh token


def login_for(reference: ImageReference, environ: Mapping[str, str] = os.environ) -> Login:
    """The login of the first file that has one for this image; NOBODY where none has.

    Raises:
        RemoteError: a file is damaged, or a helper that is named for this registry does not work.
    """
    for path, named in _places(environ):
        content = _read(path, named)
        login = _login_in(content, path, reference, environ) if content is not None else None
        if login is not None:
            return login
    return NOBODY


def _places(environ: Mapping[str, str]) -> list[tuple[str, bool]]:
    """(path, whether it was named expressly) of the files, in the order in which podman reads them."""
    named = environ.get("REGISTRY_AUTH_FILE", "")
    if named:
        return [(named, True)]
    home, places = environ.get("HOME", ""), []
    if environ.get("XDG_RUNTIME_DIR"):
        places.append(f"{environ['XDG_RUNTIME_DIR']}/containers/auth.json")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    if config:
        places.append(f"{config}/containers/auth.json")
    docker = environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    if docker:
        places.append(f"{docker}/config.json")
    return [(path, False) for path in places]


def _read(path: str, named: bool) -> dict[str, Any] | None:
    import json

    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        content = json.loads(data) if len(data) <= _MOST_BYTES else None
    except FileNotFoundError:
        if not named:
            return None
        raise errors.RemoteError(f"{path}: there is no such file", hint="REGISTRY_AUTH_FILE names it") from None
    except NotADirectoryError:
        return None
    except OSError as error:
        raise errors.RemoteError(errors.describe_oserror(error), hint="it holds logins for registries") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise errors.RemoteError(f"{path}: is not a JSON object", hint="it holds logins for registries: mend it")
    return content


def _login_in(
    content: dict[str, Any], path: str, reference: ImageReference, environ: Mapping[str, str]
) -> Login | None:
    """What one file says: its helper for this registry first, then its entries, then the helper for all."""
    helpers, auths = content.get("credHelpers"), content.get("auths")
    names = _keys(reference)
    for name in names:
        helper = helpers.get(name) if isinstance(helpers, dict) else None
        if isinstance(helper, str) and helper:
            login = _ask_helper(helper, name, environ)
            if login is not None:
                return login
    if isinstance(auths, dict):
        known = {_normal(key): entry for key, entry in auths.items() if isinstance(entry, dict)}
        for name in (_normal(each) for each in names):
            if name in known:
                login = _entry(known[name], path, name)
                if login is not None:
                    return login
    helper = content.get("credsStore")
    if isinstance(helper, str) and helper:
        whole = _HUB_KEY if reference.registry == DOCKER_HUB else reference.registry
        return _ask_helper(helper, whole, environ)
    return None


def _keys(reference: ImageReference) -> list[str]:
    """The keys that may stand for an image, from the longest to the registry's."""
    path = f"{reference.registry}/{reference.repository}".split("/")
    keys = ["/".join(path[:count]) for count in range(len(path), 0, -1)]
    return [*keys, _HUB_KEY] if reference.registry == DOCKER_HUB else keys


def _normal(key: str) -> str:
    """A key without what docker writes around a host: `https://HOST/v1/`."""
    key = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for version in ("/v1", "/v2"):
        key = key.removesuffix(version)
    return DOCKER_HUB if key in ("index.docker.io", "registry-1.docker.io") else key


def _entry(entry: dict[str, Any], path: str, name: str) -> Login | None:
    from base64 import b64decode

    identity, auth = entry.get("identitytoken"), entry.get("auth")
    user, password = entry.get("username"), entry.get("password")
    if isinstance(auth, str) and auth:
        try:
            text = b64decode(auth, validate=True).decode().rstrip("\0")
        except ValueError:
            raise errors.RemoteError(
                f"{path}: the entry for {name} is damaged", hint=f"`podman login {name}`"
            ) from None
        user, _, password = text.partition(":")
    if isinstance(identity, str) and identity:
        return Login(user=user if isinstance(user, str) else "", identity=identity)
    if isinstance(user, str) and user and isinstance(password, str):
        return Login(user=user, password=password)
    return None  # docker leaves empty entries beside its credsStore


def _ask_helper(helper: str, name: str, environ: Mapping[str, str]) -> Login | None:
    """`docker-credential-HELPER get`; None where it has none for this registry."""
    import json
    import subprocess

    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise errors.RemoteError(f"{program}: a credential helper is named without a path")
    try:
        done = subprocess.run(
            [program, "get"],
            input=f"{name}\n".encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            timeout=_HELPER_S,
            check=False,
        )
    except FileNotFoundError:
        raise errors.RemoteError(
            f"{program}: is not installed, and keeps the login for {name}", hint="install it, or log in anew"
        ) from None
    except subprocess.TimeoutExpired:
        raise errors.RemoteError(f"{program}: no answer for {name} within {_HELPER_S:.0f} s") from None
    except OSError as error:
        raise errors.RemoteError(f"{program}: {error.strerror}") from None
    if done.returncode != 0:
        if b"credentials not found" in done.stdout:  # docker-credential-helpers' own words for it
            return None
        raise errors.RemoteError(f"{program}: failed for {name} ({done.returncode})", hint=f"try `{program} get`")
    try:
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise errors.RemoteError(f"{program}: its answer for {name} is not understood") from None
    if not user or not secret:
        return None
    return Login(identity=secret) if user == _IDENTITY else Login(user=user, password=secret)
