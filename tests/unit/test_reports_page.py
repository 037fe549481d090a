"""The report page as a file: what is in it, and that nothing in it comes from a job as markup."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_folders as folders
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors, reports
from guntainer.reports import page, writing


class Parts(HTMLParser):
    """The elements of a page: (tag, attributes, text)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)

    def of(self, tag: str, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        return [(a, text) for name, a, text in self.found if name == tag and attributes.items() <= a.items()]


def made(tmp_path: Path, whole: Any, logs: Any = None, **settings: Any) -> Parts:
    folder = folders.write(tmp_path / "r", whole, logs)
    reports.write_html(str(folder / "page.html"), whole, str(folder), **settings)
    return Parts((folder / "page.html").read_text())


def facts(parts: Parts) -> Any:
    return json.loads(parts.of("script", id="facts")[0][1])


def test_only_our_own_script_and_style_may_run(tmp_path: Path) -> None:
    whole, logs = folders.hostile()
    parts = made(tmp_path, whole, logs)
    policy = next(a["content"] for a, _ in parts.of("meta") if a.get("http-equiv"))
    scripts = [text for a, text in parts.of("script") if "type" not in a]
    assert len(scripts) == 1
    for text, what in ((scripts[0], "script-src"), (parts.of("style")[0][1], "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{what} 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'; ")
    assert {a.get("type") for a, _ in parts.of("script")} == {None, "application/json", "text/plain"}
    assert not [a for _, a, _ in parts.found if any(name.startswith("on") or name == "src" for name in a)]


def test_the_same_elements_whatever_the_jobs_are(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    whole, logs = folders.hostile()
    hostile = made(tmp_path, whole, logs)
    mild = made(tmp_path / "other", folders.batch(folders.result("a", wall_ns=1)))
    outline = [[(tag, sorted(a)) for tag, a, _ in parts.found] for parts in (hostile, mild)]
    assert outline[0] == outline[1]


def test_what_the_page_is_told(tmp_path: Path) -> None:
    whole, logs = folders.hostile()
    told = facts(made(tmp_path, whole, logs))
    assert [job["id"] for job in told["jobs"]] == [one.id for one in whole.results]
    assert told["facts"] == [list(pair) for pair in whole.facts]
    assert told["links"] == "./"


def test_logs_come_back_byte_by_byte(tmp_path: Path) -> None:
    whole, logs = folders.hostile()
    parts = made(tmp_path, whole, logs)
    blocks = [zlib.decompress(base64.b64decode(text)) for _, text in parts.of("script", type="text/plain")]
    for job in facts(parts)["jobs"]:
        found = {(place[0], place[1]): place for place in job["logs"]}
        for stream, data in zip(("stdout", "stderr"), logs[job["id"]], strict=True):
            _, _, size, block, at, head, tail, _ = found[(stream, 0)]
            assert blocks[block][at : at + head + tail] == data
            assert size == len(data)


@given(st.text())
def test_embedded_text_ends_no_script(text: str) -> None:
    found = page.embedded({"x": text, text: 1})
    assert not set(found) & set("<>&\u2028\u2029")
    assert found.isascii()
    assert json.loads(found)["x"] in (text, 1)


def test_the_title_is_text(tmp_path: Path) -> None:
    whole = folders.batch(folders.result("a")).replace(name='</title><script>alert(1)</script>"\ud800')
    parts = made(tmp_path, whole)
    assert parts.of("title")[0][1] == '</title><script>alert(1)</script>"?'


@pytest.mark.parametrize(
    ("at", "folder", "link"),
    [
        ("r/page.html", "r", "./"),
        ("page.html", "r", "./r/"),
        ("page.html", "a/b #?", "./a/b%20%23%3F/"),
        ("out/page.html", "r", None),
        ("page.html", "java:script", "./java%3Ascript/"),
    ],
)
def test_links_where_the_results_lie_below_the_page(tmp_path: Path, at: str, folder: str, link: str | None) -> None:
    assert page.links_from(str(tmp_path / at), str(tmp_path / folder)) == link
    assert page.links_from(str(tmp_path / at), None) is None


def test_history_is_not_trusted(tmp_path: Path) -> None:
    whole = folders.batch(folders.result("a", wall_ns=1))
    runs: list[Any] = [{"wall_ns": "x", "outcome": "<b>"}, {}, {"wall_ns": 2_000_000, "outcome": "failed"}]
    assert facts(made(tmp_path, whole, history={"a": runs}))["jobs"][0]["runs"] == [
        [0, "ok"],
        [0, "ok"],
        [2.0, "failed"],
    ]


def test_it_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "page.html"
    target.write_text("before")

    def pieces() -> Any:
        yield b"half"
        assert (tmp_path / "page.html.new").read_bytes() == b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing.Target(str(target), option="--html").write(pieces())
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_full_disk_is_one_line() -> None:
    with pytest.raises(
        errors.GuntainerError, match="--html /dev/full: No space left on device; the report is not written"
    ):
        writing.Target("/dev/full", option="--html").write([b"x"])


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    writing.Target(str(path), option="--html").write([b"a", b"b"])
    reader.join(10)
    assert got == [b"ab"]
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("path", ["nowhere/page.html", ".", "file/page.html", "a\0b", "link.html"])
def test_what_can_not_be_written_is_found_out_before(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link.html.new").symlink_to("file")
    with pytest.raises(errors.UsageError, match="--html"):
        writing.Target(str(tmp_path / path), option="--html")
    assert sorted(os.listdir(tmp_path)) == ["file", "link.html.new"]


def test_the_folder_is_gone(tmp_path: Path) -> None:
    with pytest.raises(errors.GuntainerError, match="the logs can not be read"):
        reports.write_html(str(tmp_path / "page"), folders.batch(folders.result("a")), str(tmp_path / "gone"))


def test_the_assets_need_nothing_else() -> None:
    text = "".join(path.read_text() for path in Path(page._ASSETS).iterdir())
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|//cdn|@import|url\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(",
        text,
    )
    assert {path.stem for path in Path(page._ASSETS).glob("*.js")} == set(page._SCRIPTS)
