"""Logins for registries, from the files of podman and docker."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from guntainer import errors
from guntainer.jobs.references import parse_image
from guntainer.remote import credentials
from guntainer.remote.authentication import NOBODY, Login, challenges
from guntainer.remote.credentials import login_for


def auth(user: str, password: str = "pw") -> dict[str, str]:
    return {"auth": b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def user_for(image: str, path: Path, **more: str) -> str:
    return login_for(parse_image(image), {"REGISTRY_AUTH_FILE": str(path), **more}).user


def test_nobody(tmp_path: Path) -> None:
    assert login_for(parse_image("a"), {}) == NOBODY
    assert login_for(parse_image("a"), {"HOME": str(tmp_path)}) == NOBODY
    assert not NOBODY
    assert Login(identity="x")


def test_the_order_of_files(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    places = [
        (tmp_path / ".docker/config.json", {}),
        (tmp_path / "docker/config.json", {"DOCKER_CONFIG": str(tmp_path / "docker")}),
        (tmp_path / ".config/containers/auth.json", {}),
        (tmp_path / "config/containers/auth.json", {"XDG_CONFIG_HOME": str(tmp_path / "config")}),
        (tmp_path / "run/containers/auth.json", {}),
        (tmp_path / "named.json", {"REGISTRY_AUTH_FILE": str(tmp_path / "named.json")}),
    ]
    for number, (path, more) in enumerate(places):
        write(path, {"auths": {"host.example": auth(f"user{number}")}})
        environ.update(more)
        assert login_for(parse_image("host.example/a"), environ) == Login(user=f"user{number}", password="pw")


def test_a_file_without_an_entry_leads_to_the_next(tmp_path: Path) -> None:
    write(tmp_path / ".config/containers/auth.json", {"auths": {"other.example": auth("other")}})
    write(tmp_path / ".docker/config.json", {"auths": {"host.example": auth("me")}})
    assert login_for(parse_image("host.example/a"), {"HOME": str(tmp_path)}).user == "me"


def test_the_longest_key_counts(tmp_path: Path) -> None:
    keys = ["host.example", "host.example/a", "host.example/a/b", "host.example:5000"]
    path = write(tmp_path / "auth.json", {"auths": {key: auth(key.replace(":", "-")) for key in keys}})
    assert user_for("host.example/x", path) == "host.example"
    assert user_for("host.example/a/x", path) == "host.example/a"
    assert user_for("host.example/a/b", path) == "host.example/a/b"
    assert user_for("host.example/a/bc", path) == "host.example/a"
    assert user_for("host.example:5000/a/b", path) == "host.example-5000"
    assert user_for("ost.example/a", path) == ""


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "auth.json", {"auths": {key: auth("me")}})
    assert user_for("alpine", path) == "me"
    assert user_for("host.example/alpine", path) == ""


@pytest.mark.parametrize("key", ["https://host.example", "http://host.example/", "https://host.example/v2/"])
def test_keys_as_docker_writes_them(tmp_path: Path, key: str) -> None:
    assert user_for("host.example/a", write(tmp_path / "auth.json", {"auths": {key: auth("me")}})) == "me"


def test_kinds_of_entries(tmp_path: Path) -> None:
    entries = {
        "a.example": {"identitytoken": "refresh", **auth("<token>", "")},
        "b.example": {"username": "me", "password": "p:w"},
        "c.example": {},
        "d.example": auth("me", "with:colons:"),
        "e.example": {"auth": b64encode(b"me:pw\0\0").decode()},
    }
    path = write(tmp_path / "auth.json", {"auths": entries})
    found = [login_for(parse_image(f"{key}/x"), {"REGISTRY_AUTH_FILE": str(path)}) for key in entries]
    assert found[0].identity == "refresh"
    assert (found[1].user, found[1].password) == ("me", "p:w")
    assert found[2] == NOBODY
    assert found[3].password == "with:colons:"
    assert found[4].password == "pw"
    assert "refresh" not in repr(found)
    assert "p:w" not in repr(found)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        ({"auths": {"host.example": {"auth": "!!secret!!"}}}, "the entry for host.example is damaged"),
    ],
)
def test_damaged(tmp_path: Path, content: Any, words: str) -> None:
    path = write(tmp_path / "auth.json", content)
    with pytest.raises(errors.RemoteError) as caught:
        user_for("host.example/a", path)
    assert f"{path}: {words}" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [{}, {"auths": None}, {"auths": []}, {"auths": {"host.example": 1}}, {"credHelpers": 1}]
)
def test_nothing_in_it(tmp_path: Path, content: Any) -> None:
    assert user_for("host.example/a", write(tmp_path / "auth.json", content)) == ""


def test_one_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(errors.RemoteError, match="REGISTRY_AUTH_FILE"):
        user_for("host.example/a", tmp_path / "gone.json")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_MOST_BYTES", 10)
    with pytest.raises(errors.RemoteError, match="is not a JSON object"):
        user_for("host.example/a", write(tmp_path / "auth.json", {"auths": {}, "x": "y" * 20}))


class TestHelpers:
    @pytest.fixture
    def path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder of programs; `fake` knows one registry and notes what it was asked."""
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
        self.program(
            tmp_path / "bin/docker-credential-fake",
            f'read name; echo "$1 $name" >> {tmp_path}/asked\n'
            'case $name in host.example) echo \'{"ServerURL": "x", "Username": "me", "Secret": "pw"}\' ;;\n'
            'token.example) echo \'{"Username": "<token>", "Secret": "refresh"}\' ;;\n'
            "bad.example) echo 'no json' ;; fail.example) exit 3 ;; slow.example) exec sleep 60 ;;\n"
            'https://index.docker.io/v1/) echo \'{"Username": "hub", "Secret": "pw"}\' ;;\n'
            "*) echo credentials not found in native keychain; exit 1 ;; esac",
        )
        return tmp_path

    def program(self, path: Path, body: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def ask(self, image: str, path: Path, content: Any) -> Login:
        import os

        file = write(path / "auth.json", content)
        return login_for(parse_image(image), {**os.environ, "REGISTRY_AUTH_FILE": str(file)})

    def test_of_one_registry(self, path: Path) -> None:
        content = {"credHelpers": {"host.example": "fake"}, "auths": {"host.example": auth("other")}}
        assert self.ask("host.example/a", path, content) == Login(user="me", password="pw")
        assert (path / "asked").read_text() == "get host.example\n"

    def test_of_all(self, path: Path) -> None:
        content = {"credsStore": "fake", "auths": {"host.example": {}, "own.example": auth("own")}}
        assert self.ask("host.example/a", path, content).user == "me"
        assert self.ask("own.example/a", path, content).user == "own"
        assert self.ask("alpine", path, content).user == "hub"
        assert self.ask("nobody.example/a", path, content) == NOBODY
        assert self.ask("token.example/a", path, content) == Login(identity="refresh")

    @pytest.mark.parametrize(
        ("host", "words"),
        [
            ("bad.example", "its answer for bad.example is not understood"),
            ("fail.example", "failed for fail.example (3)"),
        ],
    )
    def test_that_does_not_work(self, path: Path, host: str, words: str) -> None:
        with pytest.raises(errors.RemoteError) as caught:
            self.ask(f"{host}/a", path, {"credsStore": "fake"})
        assert words in str(caught.value)

    def test_that_does_not_answer(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(credentials, "_HELPER_S", 0.2)
        with pytest.raises(errors.RemoteError, match=r"no answer for slow\.example"):
            self.ask("slow.example/a", path, {"credsStore": "fake"})

    def test_that_is_not_there(self, path: Path) -> None:
        with pytest.raises(errors.RemoteError, match="docker-credential-gone: is not installed"):
            self.ask("host.example/a", path, {"credsStore": "gone"})

    def test_that_is_a_path(self, path: Path) -> None:
        with pytest.raises(errors.RemoteError, match="named without a path"):
            self.ask("host.example/a", path, {"credsStore": "../evil"})


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (
            ['Bearer realm="https://a.example/t?x=1,2",service="s",scope="repository:a:pull,push"'],
            {"bearer": {"realm": "https://a.example/t?x=1,2", "service": "s", "scope": "repository:a:pull,push"}},
        ),
        (['BASIC realm="a \\"b\\" c"'], {"basic": {"realm": 'a "b" c'}}),
        (["Basic realm=plain, Bearer realm=x"], {"basic": {"realm": "plain"}, "bearer": {"realm": "x"}}),
        (["Negotiate, Basic realm = x"], {"negotiate": {}, "basic": {"realm": "x"}}),
        (["Basic a=1", "Basic a=2", "Bearer b=3"], {"basic": {"a": "1"}, "bearer": {"b": "3"}}),
        ([""], {}),
        (['Bearer realm="never ends'], {"bearer": {"realm": "never ends"}}),
        (["=,=,="], {"": {}}),
    ],
)
def test_challenges(fields: list[str], found: dict[str, dict[str, str]]) -> None:
    got = challenges(fields)
    assert {k: v for k, v in got.items() if k} == {k: v for k, v in found.items() if k}
