"""The plugin of pytest, used as its users do: in a pytest of its own, with tests of its own."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import PROJECT, Traces

pytest_plugins = "pytester"
pytestmark = pytest.mark.usefixtures("user_namespaces")

_INSTALLED = any(
    point.value == "guntainer.pytest_plugin" for point in importlib.metadata.entry_points(group="pytest11")
)
_WITH = () if _INSTALLED else ("-p", "guntainer.pytest_plugin")


class Suite:
    """A folder with a test file, and with two rootfs beside it."""

    def __init__(self, pytester: pytest.Pytester, archive: Path) -> None:
        self.pytester = pytester
        for name in ("one.tar.gz", "two.tar.gz"):
            (pytester.path / name).symlink_to(archive)

    def run(self, text: str, *words: str) -> pytest.RunResult:
        self.pytester.makepyfile(test_it="import pytest\n\n" + textwrap.dedent(text))
        line = ("-v", "--strict-markers", "-p", "no:cacheprovider", "-W", "error", *_WITH, *words)
        return self.pytester.runpytest_subprocess(*line, timeout=90)


@pytest.fixture
def suite(home: Path, small_archive: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    # the working directory is pytester's now; the store and the folder for temporary files stay those of `home`
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.delenv("CI", raising=False)  # there, pytest tells of each failure twice
    return Suite(pytester, small_archive)


def test_a_command_for_each_rootfs(suite: Suite, traces: Traces) -> None:
    done = suite.run("""
        @pytest.mark.guntainer(rootfs=["one.tar.gz", "two.tar.gz"], run="echo said; echo wrong >&2; exit 3")
        def test_both(container):
            assert (container.stdout, container.stderr) == (b"said\\n", b"wrong\\n")
            assert container.code == 3 and not container.ok
            assert container.exit.reason == "exit" and container.result.rootfs == container.rootfs

        @pytest.mark.guntainer(rootfs={"first": "one.tar.gz", "second": {"source": "two.tar.gz"}}, command=["true"])
        def test_named():
            pass
    """)
    assert done.ret == 0, done.outlines
    done.assert_outcomes(passed=4)
    names = [line.split()[0] for line in done.outlines if " PASSED" in line]
    assert [name.partition("::")[2] for name in names] == [
        "test_both[one]", "test_both[two]", "test_named[first]", "test_named[second]",
    ]  # fmt: skip
    traces.check()


def test_a_failure_that_nobody_looks_at_fails_the_test(suite: Suite, traces: Traces) -> None:
    done = suite.run("""
        MARK = pytest.mark.guntainer(rootfs="one.tar.gz", run="echo before; echo why it is >&2; exit 3")

        @MARK
        def test_alone(): ...

        @MARK
        def test_that_reads(container):
            assert container.stdout

        @MARK
        def test_that_checks(container):
            container.check()

        @MARK
        def test_that_fails_by_itself(container):
            assert container.code == 0

        @pytest.mark.guntainer(rootfs="one.tar.gz", run="sleep 50", timeout=0.3)
        def test_too_long(): ...

        @pytest.mark.guntainer(rootfs="one.tar.gz", command=["nosuch"])
        def test_not_there(): ...

        @pytest.mark.xfail(strict=True)
        @MARK
        def test_expected(): ...
    """)
    done.assert_outcomes(failed=6, xfailed=1)
    text = done.stdout.str()
    assert text.count("in one: exit 3: echo before; echo why it is >&2; exit 3\n") >= 3
    assert text.count("the end of its stderr:") == 3 and text.count("the end of its stdout:\nbefore\n") == 2
    assert "stderr in one: " in text  # beside the test's own assertion
    assert "in one: timeout after 0.3 s: sleep 50\n" in text
    assert "in one: nosuch: command not found in the rootfs: nosuch\n" in text
    assert "Traceback" not in text
    traces.check()


def test_commands_of_the_tests_own(suite: Suite, traces: Traces) -> None:
    done = suite.run("""
        import pathlib

        HERE = pathlib.Path(__file__).parent
        (HERE / "shared").mkdir()
        pytestmark = pytest.mark.guntainer(rootfs="one.tar.gz", env={"A": "1"})

        @pytest.mark.guntainer(volumes=["shared:/shared"], stop_timeout=1)
        def test_several(container):
            container.run("echo $A$B > /shared/file", env={"B": "2"})
            assert (HERE / "shared" / "file").read_text() == "2\\n"
            assert container.run(["cat", "/shared/file"]).check().stdout == b"2\\n"
            assert container.run("echo $A").stdout == b"1\\n"
            assert not container.run("touch /once; test -e /nothing").ok
            assert not container.run("test -e /once").ok  # each is a fresh one

        def test_one_fails(container):
            container.run("true")
            container.run("echo it was this; exit 4")
            container.run("true")

        class TestAll:
            @pytest.mark.guntainer(rootfs="two.tar.gz", run="echo $A")
            def test_the_closest_mark_wins(self, container):
                assert container.rootfs == "two" and container.stdout == b"1\\n"
    """)
    done.assert_outcomes(passed=2, failed=1)
    assert "exit 4: " in done.stdout.str() and "it was this" in done.stdout.str()
    traces.check()


@pytest.mark.parametrize(
    ("mark", "why"),
    [
        (
            "rootfs='one.tar.gz', comand=['true']",
            'test_it.py::test_it[[]one]: comand: unknown key (did you mean "command"?)',
        ),
        (
            "rootfs='one.tar.gz', command=['true'], timeout=-1",
            "test_it.py::test_it[[]one]: timeout: expected a duration*",
        ),
        (
            "rootfs='one.tar.gz', command=['true'], env={'A': object()}",
            "*expected str, bytes or os.PathLike object, not object",
        ),
        ("rootfs='none.tar.gz', command=['true']", "*none.tar.gz*"),
        ("rootfs='one.tar.gz', command=['true'], repeat=2", "*2 jobs come of it; parametrize the test instead"),
        ("rootfs='one.tar.gz', command=['true'], volumes=['none:/none']", "*none*"),
        ("command=['true']", "*expected a path, a list of paths, or a table of them by name*"),
        ("rootfs=[], command=['true']", "*expected a path, a list of paths, or a table of them by name*"),
        ("rootfs=[7], command=['true']", "*expected a path, a list of paths, or a table of them by name*"),
        (
            "rootfs='one.tar.gz', command=['true'], services=['db']",
            "*services: expected a table by name, got [[]'db'[]]; write services=*",
        ),
        (
            "rootfs='one.tar.gz', command=['true'], services={'db': {'rootfs': 'one.tar.gz', 'comand': []}}",
            '*services.db.comand: unknown key (did you mean "command"?)',
        ),
        ("rootfs='one.tar.gz', command=['true'], secrets=['TOKEN']", "*secrets: there are none in tests*give it env"),
        (
            "rootfs='one.tar.gz', command=['true'], services={'db': {'rootfs': 'one.tar.gz', 'secrets': ['TOKEN']}}",
            "*secrets: there are none in tests*",
        ),
        ("'one.tar.gz'", "*expected rootfs=…, command=… and so on, got 'one.tar.gz'*"),
    ],
)
def test_a_mark_that_makes_no_sense(suite: Suite, mark: str, why: str) -> None:
    done = suite.run(f"""
        @pytest.mark.guntainer({mark})
        def test_it(container):
            pass
    """)
    assert done.ret in (1, 2)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([f"*{why}*"])
    text = done.stdout.str()
    assert "Traceback" not in text and "INTERNALERROR" not in text and "During handling" not in text


def test_the_example(suite: Suite, small_archive: Path, traces: Traces) -> None:
    """What the plugin's own text shows does what it says."""
    from guntainer import pytest_plugin

    text = textwrap.dedent(re.search(r"\n\n((?:    .*\n|\n)+)", str(pytest_plugin.__doc__))[1])  # type: ignore[index]
    for name in ("tests", "src"):
        suite.pytester.mkdir(name)
    suite.pytester.path.joinpath("src", "main.py").write_text("import this\n")
    for name in ("alpine.tar.gz", "debian.tar.xz"):
        (suite.pytester.path / "tests" / name).symlink_to(small_archive)
    suite.pytester.path.joinpath("tests", "test_example.py").write_text(text)
    done = suite.run("", "tests")
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines(["*::test_it_is_linux[[]alpine] PASSED*", "*::test_it_is_linux[[]debian] PASSED*"])
    traces.check()


def test_services(suite: Suite, traces: Traces) -> None:
    done = suite.run("""
        import pathlib

        HERE = pathlib.Path(__file__).parent
        (HERE / "shared").mkdir()
        DB = {"rootfs": "two.tar.gz", "run": "echo $WORD > /shared/up; sleep 50", "env": {"WORD": "up"},
              "volumes": ["shared:/shared"], "ready": "test -e /shared/up", "ready_timeout": "20s"}

        @pytest.mark.guntainer(rootfs="one.tar.gz", services={"db": DB}, network="none", run="cat /shared/up",
                               volumes=["shared:/shared"])
        def test_it(container):
            assert container.check().stdout == b"up\\n"

        @pytest.mark.guntainer(rootfs="one.tar.gz", services={"db": {**DB, "run": "exit 3"}}, network="none")
        def test_none(container):
            container.run("true", services={})
            container.run("true")
    """)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*service db*exit 3*"])
    traces.check()


def test_the_example_of_services(suite: Suite, alpine: Path, traces: Traces) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (PROJECT / "BATCH.md").read_text(), re.S | re.M)
    (text,) = [block for block in blocks if "services={" in block]
    (suite.pytester.path / "alpine.tar.gz").symlink_to(alpine)
    suite.run(text.removeprefix("import pytest\n")).assert_outcomes(passed=1)
    traces.check()


def test_a_store_that_can_not_be_had(suite: Suite, home: Path, traces: Traces) -> None:
    (home / "file").write_text("")
    text = """
        @pytest.mark.parametrize("n", range(2))
        @pytest.mark.guntainer(rootfs="one.tar.gz", command=["true"])
        def test_it(container, n): ...
    """
    done = suite.run(text, "--guntainer-store", str(home / "file" / "store"))
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines([f"*{home}/file*: Not a directory*"])
    assert "Traceback" not in done.stdout.str()
    traces.check()


def test_what_keeps_a_command_from_running_is_an_error(suite: Suite) -> None:
    """Also where the test has no use for the fixture."""
    done = suite.run("""
        @pytest.mark.guntainer(rootfs="none.tar.gz", command=["true"])
        def test_it():
            pass

        @pytest.mark.skip
        @pytest.mark.guntainer(rootfs="none.tar.gz", command=["true"])
        def test_skipped():
            pass
    """)
    done.assert_outcomes(errors=1, skipped=1)


def test_a_method_of_unittest_is_refused(suite: Suite) -> None:
    done = suite.run("""
        import unittest

        class TestIt(unittest.TestCase):
            @pytest.mark.guntainer(rootfs="one.tar.gz", command=["false"])
            def test_it(self): ...
    """)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(
        ["ERROR: *test_it: a method of unittest's can not have @pytest.mark.guntainer; write a function"]
    )


WRONG_FOR_A_WORKER = """
    import unittest

    @pytest.mark.guntainer(rootfs="one.tar.gz", command=["true"])
    def test_good(): ...

    if METHOD:
        class TestIt(unittest.TestCase):
            @pytest.mark.guntainer(rootfs="one.tar.gz", command=["false"])
            def test_it(self): ...
"""


@pytest.mark.parametrize(("method", "options"), [(True, ()), (False, ("--guntainer-rootfs", "zz"))])
def test_a_worker_of_xdist_leaves_it_to_who_has_started_it(
    suite: Suite, method: bool, options: tuple[str, ...]
) -> None:
    """What is wrong is told in one line, and is no internal error; no test runs."""
    text = f"METHOD = {method}\n{textwrap.dedent(WRONG_FOR_A_WORKER)}"
    suite.pytester.makeconftest("""
        def pytest_configure(config):
            config.workerinput, config.workeroutput = {}, {}
        def pytest_unconfigure(config):
            print(config.workeroutput)
    """)
    alone = suite.run(text, *options)
    assert alone.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    why = "a method of unittest's can not have" if method else "--guntainer-rootfs zz: no test has such a rootfs"
    alone.stdout.fnmatch_lines([f"*guntainer_refused*{why}*"])
    assert "INTERNALERROR" not in alone.stdout.str()


@pytest.mark.parametrize(("method", "options"), [(True, ()), (False, ("--guntainer-rootfs", "zz"))])
def test_with_xdist(suite: Suite, traces: Traces, method: bool, options: tuple[str, ...]) -> None:
    text = f"METHOD = {method}\n{textwrap.dedent(WRONG_FOR_A_WORKER)}"
    done = suite.run(text, "-n2", *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.str().count("ERROR: ") == 1 and "Traceback" not in done.stderr.str()
    assert "INTERNALERROR" not in done.stdout.str() and "PASSED" not in done.stdout.str()
    suite.run(text.replace("METHOD = True", "METHOD = False"), "-n2").assert_outcomes(passed=1)
    traces.check()


def test_what_a_worker_has_left_to_us_is_raised() -> None:
    from guntainer.pytest_plugin import pytest_testnodedown

    node = type("Node", (), {"workeroutput": {"guntainer_refused": "it is wrong"}})()
    with pytest.raises(pytest.UsageError, match="it is wrong"):
        pytest_testnodedown(node)
    node.workeroutput = {"exitstatus": 0}
    pytest_testnodedown(node)
    pytest_testnodedown(object())  # which was killed


def test_the_fixture_without_a_mark(suite: Suite) -> None:
    done = suite.run("def test_it(container): ...")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*container: this test has no @pytest.mark.guntainer(rootfs=…)*"])


def test_options(suite: Suite, home: Path) -> None:
    text = """
        @pytest.mark.guntainer(rootfs=["one.tar.gz", "two.tar.gz"], command=["true"])
        def test_it(): ...

        def test_plain(): ...
    """
    store = home / "another"
    suite.run(text, "--guntainer-rootfs", "t*", "--guntainer-store", str(store)).assert_outcomes(passed=2, deselected=1)
    assert list((store / "rootfs").iterdir()) and not (home / "store" / "rootfs").exists()
    suite.run(text, "--guntainer-rootfs", "one.tar.gz", "--guntainer-rootfs", "two").assert_outcomes(passed=3)
    done = suite.run(text, "--guntainer-rootfs", "three")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --guntainer-rootfs three: no test has such a rootfs"])
    help_text = suite.run(text, "--help").stdout.str()
    assert "--guntainer-store=DIR" in help_text and "--guntainer-rootfs=GLOB" in help_text
    assert "guntainer(rootfs=" in suite.run(text, "--markers").stdout.str()


def test_it_is_nothing_where_it_is_not_used(suite: Suite) -> None:
    """Not even its hook around tests is there."""
    done = suite.run("""
        import sys

        def test_plain(request):
            ours = {name for name in sys.modules if name.partition(".")[0] == "guntainer"}
            assert ours == {"guntainer", "guntainer.pytest_plugin"}
            assert "anyio" not in sys.modules or request.config.pluginmanager.has_plugin("anyio")
            assert not request.config.pluginmanager.has_plugin("guntainer-running")
    """)
    done.assert_outcomes(passed=1)


def test_two_of_them_at_once(suite: Suite, traces: Traces) -> None:
    """As the workers of a parallel run: each has a supervisor of its own, and they share a store that is still empty."""
    suite.pytester.makepyfile(
        test_it="import pytest\n"
        '@pytest.mark.parametrize("n", range(4))\n'
        '@pytest.mark.guntainer(rootfs=["one.tar.gz", "two.tar.gz"], run="echo said")\n'
        'def test_it(container, n):\n    assert container.check().stdout == b"said\\n"\n'
    )
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_WITH]
    both = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    for one in both:
        out, _ = one.communicate(timeout=90)
        assert one.returncode == 0 and "8 passed" in out, out
    traces.check()


_LONG = """
    import os, pathlib, signal

    @pytest.mark.guntainer(rootfs="one.tar.gz", run="echo up > /here/up; sleep 100 & sleep 100", volumes=[".:/here"])
    def test_long():
        pass
"""


@pytest.mark.parametrize(("number", "code"), [(2, 2), (15, -15), (9, -9)])
def test_nothing_lives_on_when_it_is_interrupted(suite: Suite, traces: Traces, number: int, code: int) -> None:
    suite.pytester.makepyfile(test_it="import pytest\n\n" + textwrap.dedent(_LONG))
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_WITH]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    import time

    end = time.monotonic() + 60
    while not (suite.pytester.path / "up").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    if number == 2:
        assert "KeyboardInterrupt" in out
        traces.check()
        return
    # killed: nobody could tidy up the folders, but nothing lives on
    end = time.monotonic() + 10
    while traces.processes():
        assert time.monotonic() < end, traces.processes()
        time.sleep(0.02)


def test_threads_of_a_test(suite: Suite, traces: Traces) -> None:
    done = suite.run("""
        from concurrent.futures import ThreadPoolExecutor

        @pytest.mark.guntainer(rootfs="one.tar.gz")
        def test_many(container):
            with ThreadPoolExecutor(4) as pool:
                runs = list(pool.map(lambda n: container.run(f"echo {n}; exit {n}"), range(8)))
            assert [run.stdout for run in runs] == [b"%d\\n" % n for n in range(8)]
            assert [run.code for run in runs] == list(range(8))
    """)
    done.assert_outcomes(passed=1)
    traces.check()


def test_large_output_is_whole(suite: Suite) -> None:
    done = suite.run("""
        @pytest.mark.guntainer(rootfs="one.tar.gz", run="head -c 3000000 /dev/zero; head -c 10 /dev/zero >&2")
        def test_it(container):
            assert (container.stdout, container.stderr) == (bytes(3000000), bytes(10))
    """)
    done.assert_outcomes(passed=1)


def test_where_there_are_no_user_namespaces(suite: Suite, traces: Traces) -> None:
    """A host that can not run containers is an error of the set-up, in one line, and no failure of what is tested."""
    suite.pytester.makepyfile(
        test_it="import pytest\n"
        '@pytest.mark.guntainer(rootfs="one.tar.gz", command=["true"])\ndef test_it(container): ...\n'
    )
    limit = "echo 0 > /proc/sys/user/max_user_namespaces"
    words = " ".join([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_WITH])
    line = ["unshare", "-Ur", "sh", "-c", f"{limit} && exec {words}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ}, check=False)
    assert done.returncode == 1 and "1 error" in done.stdout, done.stdout
    assert "user namespace" in done.stdout and "Traceback" not in done.stdout
