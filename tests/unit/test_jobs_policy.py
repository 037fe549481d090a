"""needs, if, stage, retry, allow-failure, priority and the batch's timeout in a job file; which jobs come with which."""

from __future__ import annotations

import itertools
import json
import random
import textwrap

import pytest

from guntainer.errors import JobFileError
from guntainer.jobs import conditions
from guntainer.jobs.load import JobFile, load
from guntainer.jobs.model import RETRY_ON, Job, Retry
from guntainer.jobs.policy import closure, without

DEFAULTS = '[defaults]\nrootfs = "./r"\nrun = "x"\n'  # lines 1 to 3
JOB = '[jobs.j]\nrootfs = "./r"\nrun = "x"\n'


def _file(text: str, name: str = "f.toml", *, max_cells: int = 1024) -> JobFile:
    return load(text.encode(), path=name, base="/b", max_cells=max_cells)


def _jobs(text: str) -> dict[str, Job]:
    return {job.id: job for job in _file(DEFAULTS + textwrap.dedent(text)).jobs}


def _needs(text: str) -> dict[str, tuple[str, ...]]:
    return {id_: job.needs for id_, job in _jobs(text).items()}


def _problems(text: str, name: str = "f.toml") -> tuple[str, ...]:
    with pytest.raises(JobFileError) as caught:
        _file(text, name)
    assert caught.value.exit_code == 2
    return caught.value.problems


def _wrong(text: str) -> tuple[str, ...]:
    """The problems of jobs; line 1 is the first one of `text`."""
    found = _problems(textwrap.dedent(text).lstrip("\n") + DEFAULTS)
    return tuple(line.removeprefix("f.toml:") for line in found)


def _value(line: str) -> Job:
    (job,) = _file(JOB + line).jobs
    return job


class TestNeeds:
    def test_nothing(self) -> None:
        job = _value("")
        assert (job.needs, job.condition, job.stage) == ((), "success()", "")
        assert (job.allow_failure, job.retry, job.priority) == (False, Retry(), 0)
        assert _value("needs = []").needs == ()

    def test_a_text_or_a_list(self) -> None:
        assert _needs(
            """
            [jobs.c]
            needs = ["b", "a", "b"]
            [jobs.b]
            needs = "a"
            [jobs.a]
            """
        ) == {"c": ("b", "a"), "b": ("a",), "a": ()}

    def test_a_matrix_is_needed_as_a_whole_or_in_part(self) -> None:
        found = _needs(
            """
            [jobs.m]
            matrix = { x = ["a", "b"], y = [1, 2] }
            [jobs.all]
            needs = "m"
            [jobs.one]
            needs = ["m (b, 1)", "m (a, 2)"]
            [jobs.both]
            needs = ["m (b, 2)", "m"]
            """
        )
        assert found["all"] == ("m (a, 1)", "m (a, 2)", "m (b, 1)", "m (b, 2)")
        assert found["one"] == ("m (b, 1)", "m (a, 2)")
        assert found["both"] == ("m (b, 2)", "m (a, 1)", "m (a, 2)", "m (b, 1)")

    def test_repeated_jobs_are_needed_all(self) -> None:
        found = _needs(
            """
            [jobs.r]
            repeat = 2
            [jobs.m]
            repeat = 2
            matrix = { x = [1, 2] }
            [jobs.all]
            needs = ["r"]
            [jobs.cell]
            needs = ["m (2)"]
            [jobs.one]
            needs = ["r #2", "m (1) #1"]
            """
        )
        assert found["all"] == ("r #1", "r #2")
        assert found["cell"] == ("m (2) #1", "m (2) #2")
        assert found["one"] == ("r #2", "m (1) #1")

    def test_each_cell_has_its_own(self) -> None:
        found = _needs(
            """
            [jobs.build]
            matrix = { os = ["a", "b"], v = [3.10] }
            [jobs.a]
            [jobs.b]
            [jobs.test]
            needs = ["build (${{ matrix.os }}, 3.10)", "${{ matrix.os }}"]
            matrix = { os = ["a", "b"] }
            [jobs.whole]
            needs = "${{ matrix.need }}"
            matrix = { need = ["a", "b"] }
            """
        )
        assert found["test (a)"] == ("build (a, 3.10)", "a")
        assert found["test (b)"] == ("build (b, 3.10)", "b")
        assert found["whole (b)"] == ("b",)

    def test_those_who_need_the_same_share_it(self) -> None:
        found = _needs('[jobs.a]\nrepeat = 3\n[jobs.b]\nneeds = "a"\nrepeat = 3\n[jobs.c]\nneeds = ["a"]\n')
        assert found["b #1"] is found["b #3"] is found["c"]

    def test_in_yaml_and_json(self) -> None:
        yaml = """
            defaults: {rootfs: ./r, run: x}
            jobs:
              a: {}
              3.10: {needs: a, if: "!cancelled()", allow_failure: yes it is}
              b:
                needs:
                  - a
                  - 3.10
                if: ${{ always() }}
                stage: teardown
                retry: 2
                priority: -1
            """
        assert _problems(textwrap.dedent(yaml), "f.yaml") == (
            'f.yaml:5:40: jobs."3.10".allow_failure: expected true or false, got the text "yes it is"',
        )
        jobs = _file(textwrap.dedent(yaml.replace("yes it is", "true")), "f.yaml").jobs
        assert [job.needs for job in jobs] == [(), ("a",), ("a", "3.10")]
        assert [job.condition for job in jobs] == ["success()", "!cancelled()", "always()"]
        assert (jobs[1].allow_failure, jobs[2].retry.attempts, jobs[2].priority) == (True, 3, -1)
        table = {"a": {}, "b": {"needs": ["a"], "if": False, "retry": {"attempts": 2, "backoff": 1.5, "on": "oom"}}}
        text = json.dumps({"timeout": 90, "defaults": {"rootfs": "./r", "run": "x"}, "jobs": table})
        found = _file(text, "f.json")
        assert (found.timeout_s, found.jobs[1].needs, found.jobs[1].condition) == (90.0, ("a",), "success() && false")
        assert found.jobs[1].retry == Retry(attempts=2, backoff_s=1.5, on=("oom",))

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("needs = 5", '4:1: jobs.j.needs: expected a list such as ["build"], or a text, got the number 5'),
            ('needs = ""', "4:1: jobs.j.needs: expected a text, got an empty one"),
            ("needs = [5]", "4:10: jobs.j.needs[0]: expected a text, got the number 5: put it into quotes"),
            ('needs = [""]', "4:10: jobs.j.needs[0]: expected a text, got an empty one"),
            ('needs = "k"', '4:1: jobs.j.needs: there is no job "k"'),
            ('needs = "j"', "4:1: jobs.j.needs: a job can not need itself"),
            ('needs = ["${{ matrix.x }}"]', '4:10: jobs.j.needs[0]: "${{ matrix.x }}": this job has no matrix'),
            ('depends-on = "a"', '4:1: jobs.j.depends-on: unknown key (did you mean "needs"?)'),
        ],
    )
    def test_what_is_wrong_with_the_key(self, lines: str, message: str) -> None:
        assert _problems(JOB + lines) == (f"f.toml:{message}",)

    def test_what_is_wrong_with_a_name(self) -> None:
        assert _wrong(
            """
            [jobs.build]
            matrix = { os = ["debian", "alpine"] }
            [jobs.test]
            needs = ["build", "biuld", "build (debain)"]
            [jobs.lint]
            needs = [
              "test",
              "lint",
            ]
            [jobs.again]
            needs = "again (2)"
            matrix = { x = [1, 2] }
            [jobs.".base"]
            [jobs.other]
            needs = ".base"
            """
        ) == (
            '4:19: jobs.test.needs[1]: there is no job "biuld" (did you mean "build"?)',
            '4:28: jobs.test.needs[2]: there is no job "build (debain)" (did you mean "build (debian)"?)',
            "8:3: jobs.lint.needs[1]: a job can not need itself",
            "11:1: jobs.again.needs: a job can not need itself",
            '15:1: jobs.other.needs: ".base" is a template: it is never run',
        )

    def test_cells_of_one_matrix_may_need_each_other(self) -> None:
        found = _needs(
            """
            [jobs.m]
            needs = "${{ matrix.after }}"
            [jobs.m.matrix]
            include = [{ n = 1, after = "start" }, { n = 2, after = "m (1, start)" }]
            [jobs.start]
            """
        )
        assert found["m (2, m (1, start))"] == ("m (1, start)",)

    def test_what_is_wrong_with_the_needed_one_is_told_alone(self) -> None:
        assert _wrong(
            """
            [jobs.a]
            timeout = "soon"
            [jobs.m]
            matrix = { x = [] }
            [jobs.n]
            rootfs = 5
            [jobs.b]
            needs = ["a", "m", "m (1)", "n"]
            """
        ) == (
            '2:1: jobs.a.timeout: expected a duration such as "30s", "10m" or "1h30m", got "soon"',
            "4:12: jobs.m.matrix.x: the axis is empty: expected at least one value",
            "6:1: jobs.n.rootfs: expected a text, got the number 5: put it into quotes",
        )

    def test_circles_are_named(self) -> None:
        assert _wrong(
            """
            [jobs.before]
            [jobs.c]
            needs = ["before", "a"]
            [jobs.a]
            needs = "b"
            [jobs.b]
            needs = ["before", "c"]
            [jobs.after]
            needs = "a"
            [jobs.x]
            needs = ["after", "y"]
            [jobs.y]
            needs = ["x"]
            """
        ) == (
            "3:20: jobs.c.needs[1]: jobs that need each other: c needs a needs b needs c",
            "11:19: jobs.x.needs[1]: jobs that need each other: x needs y needs x",
        )

    def test_a_circle_beside_other_mistakes(self) -> None:
        assert _wrong('[jobs.a]\nneeds = ["b", "d"]\nretry = -1\n[jobs.b]\nneeds = ["a", "b"]\n') == (
            "2:10: jobs.a.needs[0]: jobs that need each other: a needs b needs a",
            '2:15: jobs.a.needs[1]: there is no job "d"',
            "3:1: jobs.a.retry: expected a whole number from 0 to 99, got the number -1",
            "5:15: jobs.b.needs[1]: a job can not need itself",
        )

    def test_a_circle_of_matrices_is_told_once(self) -> None:
        text = '[jobs.a]\nneeds = "b"\nmatrix = { x = [1, 2] }\n[jobs.b]\nneeds = "a"\nrepeat = 2\n'
        assert _wrong(text) == ("2:1: jobs.a.needs: jobs that need each other: a (1) needs b #1 needs a (1)",)

    @pytest.mark.parametrize("seed", range(40))
    def test_circles_are_found_wherever_they_are(self, seed: int) -> None:
        """Beside a search that takes away jobs without needs, of graphs with many needs in common."""
        chance = random.Random(seed)
        names = [f"j{n}" for n in range(chance.randint(2, 12))]
        lists = [chance.sample(names, chance.randint(0, min(3, len(names)))) for _ in range(chance.randint(1, 8))]
        needs = {name: [each for each in chance.choice(lists) if each != name] for name in names}
        text = "".join(f"[jobs.{name}]\nneeds = {needs[name]}\nrepeat = {chance.randint(1, 2)}\n" for name in names)
        left = dict(needs)
        while free := [name for name in left if not any(each in left for each in left[name])]:
            for name in free:
                del left[name]
        if not left:
            assert len(_jobs(text)) >= len(names)
            return
        for line in _wrong(text):
            circle = [each.partition(" ")[0] for each in line.partition("each other: ")[2].split(" needs ")]
            assert len(circle) > 2 and circle[0] == circle[-1]
            assert all(after in needs[before] for before, after in itertools.pairwise(circle))

    def test_many_circles_are_told_quickly(self) -> None:
        pairs = "".join(f'[jobs.a{n}]\nneeds = "b{n}"\n[jobs.b{n}]\nneeds = "a{n}"\n' for n in range(2500))
        assert len(_wrong(pairs)) == 201
        names = [f"j{n}" for n in range(2000)]
        chain = "".join(f'[jobs.j{n}]\nneeds = "j{n + 1}"\n' for n in range(1999))
        assert len(_wrong(f"{chain}[jobs.j1999]\nneeds = {names[:-1]}\n")) == 1

    def test_a_long_circle_is_shortened(self) -> None:
        text = "".join(f'[jobs.j{n}]\nneeds = "j{(n + 1) % 50}"\n' for n in range(50))
        names = " needs ".join(f"j{n}" for n in range(8))
        assert _wrong(text) == (f"2:1: jobs.j0.needs: jobs that need each other: {names} needs … (42 more) needs j0",)

    def test_many_jobs_are_no_trouble(self) -> None:
        """Neither deep nor wide: what is planned is walked through, not called through, and shared."""
        chain = "".join(f'[jobs.j{n}]\nneeds = "j{n - 1}"\n' for n in range(1, 5000))
        jobs = _file(f"{DEFAULTS}[jobs.j0]\n{chain}").jobs
        assert jobs[-1].needs == ("j4998",)
        assert len(closure(jobs, ["j4999"])[1]) == 4999
        wide = _needs('[jobs.a]\nrepeat = 5000\n[jobs.b]\nrepeat = 5000\nneeds = "a"\n[jobs.t]\nstage = "teardown"\n')
        assert wide["b #1"] is wide["b #5000"] and len(wide["t"]) == 10000

    def test_hints_are_bounded(self) -> None:
        found = _wrong("".join(f'[jobs.job{n}]\nneeds = "jbo{n}"\n' for n in range(300)))
        assert sum("did you mean" in line for line in found) == 20
        assert found[-1] == "f.toml: and 100 more".removeprefix("f.toml:")


class TestConditions:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('if = "always()"', "always()"),
            ('if = "${{ failure() || cancelled() }}"', "failure() || cancelled()"),
            ("if = true", "success()"),
            ("if = false", "success() && false"),
            ("if = '1 == 2'", "success() && 1 == 2"),
        ],
    )
    def test_normal_form(self, line: str, expected: str) -> None:
        job = _value(line)
        assert job.condition == expected
        assert str(conditions.parse(job.condition)) == expected

    def test_each_cell_has_its_own(self) -> None:
        jobs = _jobs(
            """
            [jobs.m]
            if = "matrix.os == 'debian' || matrix.extra"
            [jobs.m.matrix]
            os = ["debian", "alpine", "void"]
            include = [{ os = "void", extra = true }]
            """
        )
        assert [job.condition for job in jobs.values()] == [
            "success()",
            "success() && null",
            "success()",
        ]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("if = 5", 'expected a condition such as "always()", got the number 5'),
            ('if = ""', 'expected a condition such as "always()", got the text ""'),
            ('if = ["always()"]', 'expected a condition such as "always()", got a list'),
            ('if = "alwys()"', 'column 1: there is no function "alwys" (did you mean "always"?)'),
            ('if = "${{ alwys() }}"', 'column 5: there is no function "alwys" (did you mean "always"?)'),
            ("if = \"matrix.os == 'x'\"", '"matrix.os": this job has no matrix'),
            (
                'if = "needs.a.result"',
                'column 1: "needs.a.result" has no meaning here: expected matrix.NAME, or a text',
            ),
        ],
    )
    def test_mistakes(self, line: str, message: str) -> None:
        (found,) = _problems(JOB + line)
        assert found.startswith(f"f.toml:4:1: jobs.j.if: {message}")

    def test_a_name_that_the_matrix_does_not_have(self) -> None:
        assert _problems(JOB + "if = \"matrix.o == 'x'\"\nmatrix = { os = [1, 2] }\n") == (
            'f.toml:4:1: jobs.j.if: "matrix.o": the matrix has no "o", only os (did you mean "os"?)',
        )

    def test_of_a_template(self) -> None:
        text = """
            [jobs.".t"]
            if = "matrix.x == 1"
            [jobs.a]
            extends = ".t"
            matrix = { x = [1, 2] }
            """
        assert [job.condition for job in _jobs(text).values()] == ["success()", "success() && 2 == 1"]
        assert _wrong('[jobs.".t"]\nif = "x"\n[jobs.a]\n') == (
            '2:1: jobs.".t".if: column 1: "x" has no meaning here: expected matrix.NAME, or a text in single quotes',
        )


class TestStages:
    def test_setup_comes_first_and_teardown_last(self) -> None:
        jobs = _jobs(
            """
            [jobs.down]
            stage = "teardown"
            [jobs.test]
            needs = "build"
            [jobs.build]
            [jobs.up]
            stage = "setup"
            [jobs.fill]
            stage = "setup"
            needs = "up"
            [jobs.part]
            needs = ["up"]
            [jobs.report]
            stage = "teardown"
            needs = ["test", "up"]
            if = "failure()"
            """
        )
        assert {id_: job.needs for id_, job in jobs.items()} == {
            "down": ("test", "build", "up", "fill", "part"),
            "test": ("build",),
            "build": ("up", "fill"),
            "up": (),
            "fill": ("up",),
            "part": ("up", "fill"),
            "report": ("test", "build", "up", "fill", "part"),
        }
        assert jobs["report"].needs is jobs["down"].needs
        assert (jobs["down"].condition, jobs["report"].condition) == ("always()", "failure()")
        assert (jobs["down"].stage, jobs["up"].stage, jobs["up"].condition) == ("teardown", "setup", "success()")

    def test_with_a_matrix(self) -> None:
        found = _needs(
            """
            [jobs.up]
            stage = "setup"
            matrix = { x = [1, 2] }
            [jobs.a]
            repeat = 2
            [jobs.down]
            stage = "teardown"
            repeat = 2
            """
        )
        assert found["a #1"] == ("up (1)", "up (2)")
        assert found["down #2"] == ("up (1)", "up (2)", "a #1", "a #2")

    def test_a_teardown_job_alone(self) -> None:
        assert _needs('[jobs.down]\nstage = "teardown"\n') == {"down": ()}

    def test_mistakes(self) -> None:
        assert _wrong(
            """
            [jobs.up]
            stage = "setup"
            needs = "build"
            [jobs.build]
            needs = ["down"]
            [jobs.down]
            stage = "teardown"
            [jobs.last]
            stage = "teardown"
            needs = ["down", "last", "up"]
            """
        ) == (
            '3:1: jobs.up.needs: "build" is no setup job: it runs after all of those, so that none of them can need it',
            '5:10: jobs.build.needs[0]: "down" is a teardown job: it runs after all others, so that none can need it',
            '10:10: jobs.last.needs[0]: "down" is a teardown job: it runs after all others, so that none can need it',
            "10:18: jobs.last.needs[1]: a job can not need itself",
        )

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('stage = "stup"', 'expected "setup" or "teardown", got "stup" (did you mean "setup"?)'),
            ('stage = ""', "expected a text, got an empty one"),
            ("stage = true", "expected a text, got true: put it into quotes"),
            ('stage = "${{ matrix.s }}"\nmatrix = { s = ["setup"] }', "all cells have it in common: it can not vary"),
        ],
    )
    def test_what_is_no_stage(self, line: str, message: str) -> None:
        assert _problems(JOB + line) == (f"f.toml:4:1: jobs.j.stage: {message}",)


class TestFailures:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("retry = 0", Retry()),
            ("retry = 2", Retry(attempts=3)),
            ("retry = 99", Retry(attempts=100)),
            ("retry = { attempts = 1 }", Retry()),
            ('retry = { attempts = 100, backoff = "1m30s" }', Retry(attempts=100, backoff_s=90.0)),
            ("retry = { attempts = 3, backoff = 0.5 }", Retry(attempts=3, backoff_s=0.5)),
            ('retry = { attempts = 3, on = "oom" }', Retry(attempts=3, on=("oom",))),
            ('retry = { attempts = 3, on = ["exit", "oom", "exit"] }', Retry(attempts=3, on=("exit", "oom"))),
            (f"retry = {{ attempts = 3, on = {list(RETRY_ON)} }}", Retry(attempts=3)),
            ('retry = "${{ matrix.n }}"\nmatrix = { n = [4] }', Retry(attempts=5)),
            ('retry = { attempts = "${{ matrix.n }}" }\nmatrix = { n = [4] }', Retry(attempts=4)),
        ],
    )
    def test_retry(self, line: str, expected: Retry) -> None:
        assert _value(line).retry == expected

    @pytest.mark.parametrize(
        ("line", "messages"),
        [
            ("retry = -1", ["4:1: jobs.j.retry: expected a whole number from 0 to 99, got the number -1"]),
            ("retry = 100", ["4:1: jobs.j.retry: expected a whole number from 0 to 99, got the number 100"]),
            ("retry = true", ["4:1: jobs.j.retry: expected a whole number from 0 to 99, got true"]),
            ("retry = 1.5", ["4:1: jobs.j.retry: expected a whole number from 0 to 99, got the number 1.5"]),
            ('retry = "often"', ['4:1: jobs.j.retry: expected a whole number from 0 to 99, got the text "often"']),
            ("retry = {}", ["4:1: jobs.j.retry: attempts is missing: expected how often to try in all, such as 3"]),
            (
                'retry = { attempts = 0, backoff = "soon", on = "exit" }',
                [
                    "4:11: jobs.j.retry.attempts: expected a whole number from 1 to 100, got the number 0",
                    '4:25: jobs.j.retry.backoff: expected a duration such as "30s", "10m" or "1h30m", got "soon"',
                ],
            ),
            (
                "retry = { attempts = 101, on = [] }",
                [
                    "4:11: jobs.j.retry.attempts: expected a whole number from 1 to 100, got the number 101",
                    "4:27: jobs.j.retry.on: the list is empty: expected at least one of setup, timeout, oom, signal, exit",
                ],
            ),
            (
                'retry = { attempts = 2, on = ["exit", "timout", "pids-limit", "moon", 5] }',
                [
                    "4:39: jobs.j.retry.on[1]: expected setup, timeout, oom, signal or exit, got"
                    ' "timout" (did you mean "timeout"?)',
                    "4:49: jobs.j.retry.on[2]: expected setup, timeout, oom, signal or exit, got"
                    ' "pids-limit" (did you mean "exit"?)',
                    '4:63: jobs.j.retry.on[3]: expected setup, timeout, oom, signal or exit, got "moon"',
                    "4:71: jobs.j.retry.on[4]: expected a text, got the number 5: put it into quotes",
                ],
            ),
            (
                'retry = { attempts = 2, on = "failure", when = 1 }',
                [
                    '4:25: jobs.j.retry.on: expected setup, timeout, oom, signal or exit, got "failure" (did you mean "exit"?)',
                    "4:41: jobs.j.retry.when: unknown key",
                ],
            ),
        ],
    )
    def test_what_is_wrong_with_retry(self, line: str, messages: list[str]) -> None:
        assert _problems(JOB + line) == tuple(f"f.toml:{message}" for message in messages)

    def test_allow_failure(self) -> None:
        assert _value("allow-failure = true").allow_failure
        assert not _value("allow_failure = false").allow_failure
        jobs = _jobs(
            """
            [jobs.m]
            allow-failure = "${{ matrix.experimental }}"
            [jobs.m.matrix]
            v = [1, 2, 3]
            include = [{ v = 2, experimental = true }, { v = 3, experimental = false }]
            """
        )
        # a cell that has no such value is "", as on GitHub
        assert [job.allow_failure for job in jobs.values()] == [False, True, False]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('allow-failure = "yes"', 'jobs.j.allow-failure: expected true or false, got the text "yes"'),
            ("allow-failure = 1", "jobs.j.allow-failure: expected true or false, got the number 1"),
            (
                "continue-on-error = true",
                'jobs.j.continue-on-error: unknown key (did you mean "allow-failure"?)',
            ),
            ("priority = 1001", "jobs.j.priority: expected a whole number from -1000 to 1000, got the number 1001"),
            ("priority = 0.5", "jobs.j.priority: expected a whole number from -1000 to 1000, got the number 0.5"),
            ('priority = "high"', 'jobs.j.priority: expected a whole number from -1000 to 1000, got the text "high"'),
            ("priority = false", "jobs.j.priority: expected a whole number from -1000 to 1000, got false"),
        ],
    )
    def test_mistakes(self, line: str, message: str) -> None:
        assert _problems(JOB + line) == (f"f.toml:4:1: {message}",)

    def test_priority(self) -> None:
        assert [_value(f"priority = {n}").priority for n in (-1000, 0, 1000)] == [-1000, 0, 1000]
        jobs = _jobs('[jobs.m]\npriority = "${{ matrix.p }}"\nmatrix = { p = [-1, 5] }\n')
        assert [job.priority for job in jobs.values()] == [-1, 5]


class TestFile:
    def test_name_and_timeout(self) -> None:
        found = _file(f'name = "nightly"\ntimeout = "1h30m"\n{JOB}')
        assert (found.name, found.timeout_s) == ("nightly", 5400.0)
        assert (_file(JOB).name, _file(JOB).timeout_s) == ("", None)
        assert _file(f"timeout = 0\n{JOB}").timeout_s is None
        assert _file(f"timeout = 90\n{JOB}").jobs[0].timeout_s is None

    def test_mistakes(self) -> None:
        assert _problems(f'name = 5\ntimeout = "soon"\n{JOB}') == (
            "f.toml:1:1: name: expected a text, got the number 5",
            'f.toml:2:1: timeout: expected a duration such as "30s", "10m" or "1h30m", got "soon"',
        )

    def test_defaults(self) -> None:
        text = '[defaults]\nrootfs = "./r"\nrun = "x"\nretry = 1\nallow_failure = true\npriority = 3\n[jobs.a]\n[jobs.b]\nretry = 0\n'
        first, second = _file(text).jobs
        assert (first.retry.attempts, first.allow_failure, first.priority) == (2, True, 3)
        assert (second.retry.attempts, second.allow_failure) == (1, True)

    def test_what_belongs_to_a_job(self) -> None:
        text = '[defaults]\nneeds = "a"\nif = "always()"\nstage = "setup"\nmatrix = { x = [1] }\nretry = -1\n'
        assert _problems(text + JOB) == (
            "f.toml:2:1: defaults.needs: what is needed belongs to a job: [jobs.NAME]",
            "f.toml:3:1: defaults.if: a condition belongs to a job: [jobs.NAME]",
            "f.toml:4:1: defaults.stage: a stage belongs to a job: [jobs.NAME]",
            "f.toml:5:1: defaults.matrix: a matrix belongs to a job: [jobs.NAME.matrix]",
            "f.toml:6:1: defaults.retry: expected a whole number from 0 to 99, got the number -1",
        )

    def test_a_byte_order_mark_is_told_before_all_else(self) -> None:
        (found,) = _problems("\ufeff" + JOB + 'needs = "x"\n')
        assert found == "f.toml:1:1: the file starts with a byte order mark: save it as UTF-8 without BOM"

    def test_names_that_look_like_commands(self) -> None:
        (found,) = _problems(JOB + 'needs = "\\u001b]0;x\\u0007"\n')
        assert found == 'f.toml:4:1: jobs.j.needs: there is no job "\\x1b]0;x\\x07"'


JOBS = """
    [jobs.up]
    stage = "setup"
    [jobs.build]
    matrix = { x = [1, 2] }
    [jobs.test]
    needs = "build (${{ matrix.x }})"
    matrix = { x = [1, 2] }
    [jobs.alone]
    [jobs.down]
    stage = "teardown"
    [jobs.clean]
    stage = "teardown"
    """


class TestSelection:
    @pytest.mark.parametrize(
        ("chosen", "added"),
        [
            (["test (2)"], ["up", "build (2)", "down", "clean"]),
            (["test (2)", "build (2)", "up", "down", "clean"], []),
            (["alone"], ["up", "down", "clean"]),
            (["up"], ["down", "clean"]),
            (["down"], []),
            (["down", "clean"], []),
            (["down", "alone"], ["up", "clean"]),
            ([], []),
            (["unknown"], []),
        ],
    )
    def test_what_is_needed_comes_with_it(self, chosen: list[str], added: list[str]) -> None:
        jobs = tuple(_jobs(JOBS).values())
        found, ids = closure(jobs, chosen)
        assert list(ids) == added
        kept = {*chosen, *added} - {"unknown"}
        assert [job.id for job in found] == [job.id for job in jobs if job.id in kept]
        ordinary = tuple(job.id for job in found if job.stage != "teardown")
        for job in found:
            whole = next(each for each in jobs if each.id == job.id)
            assert job == whole.replace(needs=ordinary if job.stage == "teardown" else whole.needs)

    def test_all_of_them_stay_as_they_are(self) -> None:
        jobs = tuple(_jobs(JOBS).values())
        found, added = closure(jobs, [job.id for job in jobs])
        assert added == ()
        assert all(one is other for one, other in zip(found, jobs, strict=True))

    def test_without_what_they_need(self) -> None:
        jobs = tuple(_jobs(JOBS).values())
        found = without(jobs, ["test (1)", "build (2)", "down", "nothing"])
        assert {job.id: job.needs for job in found} == {
            "build (2)": (),
            "test (1)": (),
            "down": ("build (2)", "test (1)"),
        }
        assert without(jobs, []) == ()
