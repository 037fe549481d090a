"""GitHub workflows as job files: what is carried over, what is a comment and a warning, and that the result can always be read."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer.errors import JobFileError
from guntainer.jobs.load import JobFile, load
from guntainer.starter import toml
from guntainer.starter.github import Converted, convert


def _convert(text: str, **how: str) -> Converted:
    return convert(textwrap.dedent(text).encode(), name="ci.yml", **how)


def _loaded(found: Converted) -> JobFile:
    return load(found.text.encode(), path="jobs.toml", base="/p")


def _jobs(text: str, *warnings: str) -> JobFile:
    """The jobs of a workflow; the warnings are just these, each told by its end."""
    found = _convert(text)
    assert len(found.warnings) == len(warnings), found.warnings
    for told, expected in zip(found.warnings, warnings, strict=True):
        assert told.endswith(expected), told
    return _loaded(found)


def _one(lines: str, *warnings: str) -> Any:
    """The one job of a workflow whose job has these lines besides."""
    text = "jobs:\n  j:\n" + textwrap.indent(textwrap.dedent(lines).rstrip() + "\n", "    ")
    if "runs-on" not in lines and "container:" not in lines:
        text += "    runs-on: ubuntu-24.04\n"
    if "steps:" not in lines:
        text += "    steps: [{run: make}]\n"
    (job,) = _jobs(text, *warnings).jobs
    return job


def _script(lines: str, *warnings: str) -> str:
    return str(_one(lines, *warnings).command[-1])


def _run(job: Any, shell: str = "bash") -> subprocess.CompletedProcess[str]:
    """The job's script in a shell of this machine, with the job's variables."""
    words = [shell, "-e", "-c", job.command[-1]]
    return subprocess.run(words, env={**os.environ, **dict(job.env)}, capture_output=True, text=True, check=False)


WORKFLOW = """
    name: CI
    on: [push]
    env: {A: workflow, B: workflow}
    defaults: {run: {working-directory: sub dir}}
    jobs:
      test:
        name: Tests
        runs-on: ${{ matrix.os }}
        timeout-minutes: 30
        continue-on-error: ${{ matrix.experimental }}
        strategy:
          max-parallel: 2
          fail-fast: false
          matrix:
            os: [ubuntu-22.04, windows-latest, ubuntu-latest]
            python: ["3.10", 3.11]
            exclude:
              - {os: ubuntu-22.04, python: 3.11}
              - {os: windows-latest}
            include:
              - {os: ubuntu-latest, python: 3.11, experimental: true}
        env: {B: job, V: "${{ matrix.python }}"}
        steps:
          - uses: actions/checkout@v4
          - uses: actions/setup-python@v5
            with: {python-version: "${{ matrix.python }}"}
          - name: Install
            run: |
              pip install .
              echo "${{ matrix.python }} ${{ env.A }}"
          - name: Test
            shell: bash
            working-directory: tests
            env: {X: 'a "b" $c'}
            run: pytest | tee log
      lint:
        needs: [test]
        if: always()
        container: {image: "python:3.12", env: {C: 1}}
        runs-on: ubuntu-latest
        steps: [{run: ruff check}]
    """


def test_a_whole_workflow() -> None:
    found = _convert(WORKFLOW, inside="..")
    assert [line.partition(": ")[2] for line in found.warnings] == [
        "jobs.test.strategy.matrix.os[1]: left out: windows-latest is no Linux, and containers here are",
        "jobs.test.steps[1].uses: left out: actions/setup-python@v5: actions do not run here; write what it does",
    ]
    assert all(line.startswith("ci.yml:") for line in found.warnings)
    file = _loaded(found)
    assert [job.id for job in file.jobs] == [
        "test (ubuntu-22.04, 3.10)",
        "test (ubuntu-latest, 3.10)",
        "test (ubuntu-latest, 3.11)",
        "lint",
    ]
    first, _, last, lint = file.jobs
    assert first.rootfs.location == "docker://docker.io/library/ubuntu:22.04"
    assert last.rootfs.location == "docker://docker.io/library/ubuntu:24.04"
    assert (first.timeout_s, first.max_parallel, first.fail_fast) == (1800, 2, False)
    assert (first.allow_failure, last.allow_failure) == (False, True)
    assert dict(last.env) == {"CI": "1", "A": "workflow", "B": "job", "V": "3.11"}
    assert last.command[:3] == ("bash", "-e", "-c")
    assert lint.rootfs.location == "docker://docker.io/library/python:3.12"
    assert (set(lint.needs), lint.condition) == ({job.id for job in file.jobs[:3]}, "always()")
    assert dict(lint.env)["C"] == "1"
    assert lint.command[:2] == ("/bin/sh", "-e")
    assert lint.workspace is not None
    assert lint.workspace.source == "/p/.."


def test_the_script_is_that_of_the_steps() -> None:
    (job, *_) = _loaded(_convert(WORKFLOW)).jobs
    assert job.command[3].split("\n") == [
        "# Each step is read like a script of its own, up to its END_OF_STEP.",
        "# actions/checkout@v4: the workspace is this folder",
        "# left out: actions/setup-python@v5: actions do not run here; write what it does",
        "#   python-version: $ {{ matrix.python }}",
        "# Install",
        "(",
        'cd -- "sub dir"',
        ". /dev/fd/3 3<<'END_OF_STEP'",
        "pip install .",
        'echo "3.10 ${A}"',
        "END_OF_STEP",
        ")",
        "# Test",
        "(",
        "set -o pipefail",
        'cd -- "tests"',
        r'export X="a \"b\" \$c"',
        ". /dev/fd/3 3<<'END_OF_STEP'",
        "pytest | tee log",
        "END_OF_STEP",
        ")",
        "",
    ]


class TestMatrix:
    def test_fail_fast_is_githubs_default(self) -> None:
        assert _one("strategy: {matrix: {a: [1]}}").fail_fast
        assert not _one("timeout-minutes: 5").fail_fast

    def test_what_only_includes_have_is_false_elsewhere(self) -> None:
        file = _jobs(
            """
            jobs:
              j:
                runs-on: ubuntu-latest
                continue-on-error: ${{ matrix.may }}
                strategy: {matrix: {include: [{a: 1, may: true}, {a: 2}]}}
                steps: [{run: x}]
            """
        )
        assert [(job.id, job.allow_failure) for job in file.jobs] == [("j (1, true)", True), ("j (2)", False)]

    def test_what_no_cell_can_be_made_of(self) -> None:
        job = _one(
            """
            strategy:
              matrix:
                a: [1, 1, {x: 1}]
                b: "${{ fromJSON(needs.x.outputs.y) }}"
                include: [{c: [1]}]
                exclude: [{z: 1}]
            """,
            "matrix.a[2]: left out: it is no text or number",
            "matrix.b: left out: it is no list of values",
            "include[0].c: left out: it is no text or number",
        )
        assert job.matrix == (("a", "1"),)

    def test_one_that_is_made_while_it_runs(self) -> None:
        job = _one('strategy: {matrix: "${{ fromJSON(x) }}"}', "left out: it is made while the workflow runs")
        assert job.matrix == ()

    def test_a_runner_that_is_another_one_elsewhere(self) -> None:
        text = """
            jobs:
              j:
                runs-on: ${{ matrix.os || 'ubuntu-22.04' }}
                strategy: {matrix: {include: [{a: 1}, {a: 2, os: windows-latest}, {a: 3, os: ubuntu-24.04}]}}
                steps: [{run: x}]
              k:
                runs-on: ${{ matrix.os || 'ubuntu-22.04' }}
                strategy: {matrix: {a: [1, 2], include: [{a: 2, os: ubuntu-24.04}]}}
                steps: [{run: x}]
              l: {runs-on: "${{ matrix.os || 'ubuntu-22.04' }}", steps: [{run: x}]}
            """
        file = _jobs(text, "left out: windows-latest is no Linux, and containers here are")
        assert [(job.key, job.rootfs.name) for job in file.jobs] == [
            ("j", "ubuntu-22.04"),
            ("j", "ubuntu-24.04"),
            ("k", "ubuntu-22.04"),
            ("k", "ubuntu-24.04"),
            ("l", "ubuntu-22.04"),
        ]

    def test_for_other_systems_alone(self) -> None:
        text = """
            jobs:
              a:
                runs-on: ${{ matrix.os }}
                strategy: {matrix: {os: [macos-14, windows-2022]}}
                steps: [{run: x}]
              b: {runs-on: windows-latest, steps: [{run: x}]}
              c: {runs-on: ubuntu-latest, needs: [a, b], steps: [{run: x}]}
            """
        found = _convert(text)
        assert [line.partition(": ")[2].partition(":")[0] for line in found.warnings] == [
            "jobs.a.runs-on",
            "jobs.a.strategy.matrix.os[0]",
            "jobs.a.strategy.matrix.os[1]",
            "jobs.b.runs-on",
            "jobs.c.needs",
            "jobs.c.needs",
        ]
        (job,) = _loaded(found).jobs
        assert (job.key, job.needs) == ("c", ())
        assert "# [jobs.b]  left out: runs-on windows-latest: containers here are Linux ones" in found.text


class TestSteps:
    def test_conditions(self) -> None:
        script = _script(
            """
            strategy: {matrix: {v: ["1"]}}
            steps:
              - {run: one, if: "matrix.v == '1'"}
              - {run: two, if: "${{ matrix.v != '1' }}"}
              - {run: three, if: "runner.os == 'Windows'"}
              - {run: four, if: "runner.os == 'Linux'"}
              - {run: five, if: "github.ref == 'refs/heads/main'"}
              - {run: six, if: failure()}
              - {run: seven, if: always()}
              - {run: eight, continue-on-error: true}
            """,
            "it is not for Linux",
            "if: github.ref == 'refs/heads/main' is no condition that is known here",
            "if: failure() is no condition that is known here",
            "runs only where the steps before it succeed: a script ends at the first failure",
        )
        lines = script.split("\n")
        step = ["(", ". /dev/fd/3 3<<'END_OF_STEP'", "one", "END_OF_STEP", ")"]
        assert lines[1:8] == ['if [ "$MATRIX_V" = "1" ]; then', *step, "fi"]
        assert lines[8:10] == ['if [ "$MATRIX_V" != "1" ]; then', "("]
        assert "# three" in lines
        assert "four" in lines
        assert "# five" in lines
        assert "seven" in lines
        assert lines[-8:-4] == ["(", "set -e", ". /dev/fd/3 3<<'END_OF_STEP'", "eight"]
        assert lines[-4:] == ["END_OF_STEP", ")", "set -e", ""]

    @pytest.mark.parametrize(
        ("condition", "holds"),
        [
            ("startsWith(matrix.v, 'py')", True),
            ("!startsWith(matrix.v, 'py')", False),
            ("endsWith(matrix.v, '3.10') && contains( matrix.v , 'py3')", True),
            ("matrix.v == 'pypy3.10' && matrix.w", False),
            ("matrix.v == 'x' || matrix.w == ''", True),
            ("matrix.w || matrix.v", True),
            ("!matrix.w", True),
            ("matrix.no == false && success()", True),
            ("matrix.no != 'false'", False),
            ("matrix.no", False),
            ("${{ runner.os == 'Linux' && matrix.v }}", True),
            ("true", True),
            ("${{ true && matrix.v }}", True),
        ],
    )
    def test_conditions_are_those_of_the_shell(self, condition: str, holds: bool) -> None:
        matrix = {"v": ["pypy3.10"], "include": [{"v": "pypy3.10", "w": "", "no": False}]}
        steps = [{"run": "echo yes", "if": condition}]
        job = _one(f"strategy: {json.dumps({'matrix': matrix})}\nsteps: {json.dumps(steps)}")
        for shell in ("sh", "bash"):
            done = _run(job, shell)
            assert (done.returncode, done.stdout == "yes\n", done.stderr) == (0, holds, "")

    def test_what_steps_write_for_those_behind_them(self) -> None:
        steps = [
            {
                "run": 'echo "A=b c" >> $GITHUB_ENV\necho /mine >> "$GITHUB_PATH"\necho x >> $GITHUB_OUTPUT; echo "X<<E" >>$GITHUB_ENV'
            },
            {"run": "echo D=5 >> $GITHUB_ENV; exit 1", "continue-on-error": True},
            {"run": 'echo "$A $D ${PATH%%:*}"'},
        ]
        job = _one(f"steps: {json.dumps(steps)}")
        for shell in ("sh", "bash"):
            assert _run(job, shell).stdout == "b c 5 /mine\n"

    @pytest.mark.parametrize("shell", ["sh", "bash"])
    def test_the_last_line_of_what_a_step_has_written_needs_no_end(self, shell: str) -> None:
        steps = [
            {"run": "printf 'A-1=x\nB=2' >> $GITHUB_ENV; printf /mine >> $GITHUB_PATH"},
            {"run": 'echo "$B ${PATH%%:*}"'},
        ]
        done = _run(_one(f"steps: {json.dumps(steps)}"), shell)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 /mine\n", "")

    @pytest.mark.parametrize("shell", ["sh", "bash"])
    @pytest.mark.parametrize(
        "script",
        ["", " \t", "# nothing yet\n", "echo x >/dev/null \\", "cat <<EOF >/dev/null\nx", "END_OF_STEP() { :; }\n# '"],
    )
    def test_whatever_a_step_is_the_others_run(self, script: str, shell: str) -> None:
        steps = [{"run": script}, {"run": "echo hi"}, {"run": script}]
        done = _run(_one(f"steps: {json.dumps(steps)}"), shell)
        assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr

    @pytest.mark.parametrize("shell", ["sh", "bash"])
    def test_one_that_is_wrong_ends_the_job_there(self, shell: str) -> None:
        steps = [{"run": "echo one"}, {"run": "echo 'two"}, {"run": "echo three"}]
        done = _run(_one(f"steps: {json.dumps(steps)}"), shell)
        assert (done.returncode != 0, done.stdout) == (True, "one\n")

    def test_one_that_says_what_ends_it(self) -> None:
        script = "cat <<END_OF_STEP\nin\nEND_OF_STEP\necho out\nEND_OF_STEP_() { :; }\n"
        done = _run(_one(f"steps: {json.dumps([{'run': script}, {'run': 'echo last'}])}"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "in\nout\nlast\n", "")

    @pytest.mark.parametrize("shell", ["sh", "bash"])
    def test_one_that_may_fail_ends_at_its_first_failure(self, shell: str) -> None:
        steps: list[dict[str, object]] = [
            {"run": "echo one\nfalse\necho GOES-ON", "continue-on-error": True, "if": "matrix.v != ''"},
            {"run": "echo two; cd none; echo GOES-ON", "continue-on-error": True, "working-directory": "/"},
            {"run": "echo three"},
            {"run": "false"},
            {"run": "echo GOES-ON"},
        ]
        done = _run(_one(f"strategy: {{matrix: {{v: [1]}}}}\nsteps: {json.dumps(steps)}"), shell)
        assert (done.returncode, done.stdout) == (1, "one\ntwo\nthree\n")

    def test_one_that_may_fail_at_times(self) -> None:
        _one(
            "strategy: {matrix: {v: [true]}}\nsteps: [{run: x, continue-on-error: '${{ matrix.v }}'}]",
            "steps[0].continue-on-error: left out: ${{ matrix.v }} is not known here",
        )

    @pytest.mark.parametrize("shell", ["sh", "bash"])
    @pytest.mark.parametrize(
        "value", ['-DX="a b" -DY=$HOME', '"a b"', "$(echo run >&2)", "`id`", "\\", "a\nb", "(", "!", "'"]
    )
    def test_no_shell_looks_into_values_of_the_matrix(self, value: str, shell: str) -> None:
        steps = [
            {
                "if": "matrix.flags != '' && !startsWith(matrix.flags, 'x') && matrix.flags",
                "env": {
                    "FLAGS": "<${{ matrix.flags }}>",
                    "LITERAL": "${{ '$(echo run >&2)' }}",
                    "MATRIX_FLAGS": "step",
                },
                "run": 'printf "%s|%s|%s" "$FLAGS" "$LITERAL" "$MATRIX_FLAGS"',
            }
        ]
        matrix = json.dumps({"matrix": {"flags": [value], "un-used": [1]}})
        job = _one(f"strategy: {matrix}\nsteps: {json.dumps(steps)}")
        assert dict(job.env) == {"CI": "1", "MATRIX_FLAGS_2": value}
        done = _run(job, shell)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"<{value}>|$(echo run >&2)|step"

    def test_folders_by_the_matrix(self, tmp_path: Path) -> None:
        (tmp_path / 'a "b"').mkdir()
        matrix = json.dumps({"matrix": {"in-dir": [str(tmp_path / 'a "b"')]}})
        steps = json.dumps([{"run": "pwd", "working-directory": "${{ matrix.in-dir }}"}])
        done = _run(_one(f"strategy: {matrix}\nsteps: {steps}"))
        assert done.stdout == f'{tmp_path}/a "b"\n'

    def test_names_of_variables_that_are_none(self) -> None:
        job = _one(
            """
            env: {"A B": 1, C: 2, "": 3, D: "\\0"}
            steps:
              - {run: 'echo "$C $E"', env: {"é": 1, "A B": 2, E: 5}}
            """,
            'env."A B": left out: "A B" can not name a variable: expected letters, digits and _',
            'left out: "" can not name a variable: expected letters, digits and _',
            "env.D: left out: a NUL character can not be passed on",
            'env."é": left out: no shell can name a variable so',
            'env."A B": left out: no shell can name a variable so',
        )
        assert _run(job).stdout == "2 5\n"

    def test_switched_on_and_off(self) -> None:
        script = _script("steps: [{run: on, if: true}, {run: off, if: false}, {run: empty, if: }]", "it never runs")
        assert [word for word in ("on", "off", "empty") if f"\n{word}\n" in script] == ["on", "empty"]

    def test_python_knows_no_variables_of_a_shell(self) -> None:
        job = _one(
            """
            env: {A: x}
            steps: [{shell: python, run: "print('<${{ env.A }}>')"}, {run: "echo '<'${{ env.A }}'>'"}]
            """,
            "${{ env.A }} has no meaning here: left empty",
        )
        assert _run(job).stdout == "<>\n<x>\n"

    def test_sudo(self) -> None:
        assert "sudo() {" in _script("steps: [{run: sudo apt-get update}]")
        assert "sudo() {" not in _script("steps: [{run: pseudo x}]")

    def test_shells(self) -> None:
        script = _script(
            """
            steps:
              - {run: "print(1)", shell: python}
              - {run: "dir", shell: pwsh}
              - {run: "x", shell: sh}
            """,
            "shell: pwsh is not known here",
        )
        assert "python3 - <<'END_OF_STEP'\nprint(1)\nEND_OF_STEP" in script
        assert "# dir" in script

    def test_expressions_without_a_meaning_are_empty(self) -> None:
        script = _script(
            """
            steps:
              - run: "echo '${{ github.sha }}' ${{ matrix.none }} ${{ runner.os }} ${{ github.workspace }} ${{ 'it''s' }}"
            """,
            "steps: ${{ github.sha }} has no meaning here: left empty",
            "steps: the matrix has no none: empty, as on GitHub",
        )
        assert "echo ''  Linux /workspace it's" in script

    def test_artifacts(self) -> None:
        job = _one(
            """
            steps:
              - run: make
              - uses: actions/upload-artifact@v4
                with: {name: x, path: "dist/*.whl\\n../no"}
            """
        )
        assert job.artifacts is not None
        assert job.artifacts.paths == ("dist/*.whl",)

    def test_none_that_runs(self) -> None:
        with pytest.raises(JobFileError, match="none of the jobs can be carried over"):
            _convert("jobs: {j: {runs-on: ubuntu-latest, steps: [{uses: actions/checkout@v4}, 5]}}")


@pytest.mark.parametrize("text", ["a", "a\n", "a\nb", "a\nb\n", "a\n\n", "\n", "\na\n", "a'\"\nb", "'''\n\"\"\"\n"])
def test_a_value_is_what_it_was(text: str) -> None:
    assert tomllib.loads(toml.entry("a", text)) == {"a": text}


class TestRest:
    def test_secrets(self) -> None:
        found = _convert(
            """
            jobs:
              j:
                runs-on: ubuntu-latest
                env: {TOKEN: "${{ secrets.TOKEN }}", OTHER: "${{ secrets.TOKEN }}"}
                steps: [{run: x}]
            """
        )
        assert [line.partition(": ")[2] for line in found.warnings] == [
            "jobs.j.env.OTHER: ${{ secrets.TOKEN }} has no meaning here: left empty"
        ]
        (job,) = _loaded(found).jobs
        assert [(secret.name, secret.variable) for secret in job.secrets] == [("TOKEN", "TOKEN")]

    def test_services(self) -> None:
        job = _one(
            """
            services:
              db:
                image: postgres:16
                env: {POSTGRES_PASSWORD: x}
                ports: [5432:5432]
                options: >-
                  --health-cmd "pg_isready -U x"
                  --health-interval 10s
              redis: {image: redis, credentials: {}}
              "b d": {image: x}
            """,
            "services.redis.credentials: left out: it has no meaning here",
            "of up to 63 letters, digits and -",
        )
        assert [service.name for service in job.services] == ["db", "redis"]
        assert job.services[0].ready[-1] == "pg_isready -U x"
        assert dict(job.services[0].job.env) == {"POSTGRES_PASSWORD": "x"}

    def test_two_services_of_one_name(self) -> None:
        file = _jobs(
            """
            jobs:
              a: {runs-on: ubuntu-latest, services: {db: {image: postgres}}, steps: [{run: x}]}
              b: {runs-on: ubuntu-latest, services: {db: {image: mysql}}, steps: [{run: x}]}
            """,
            "its host name is b-db: another job's service is called db",
        )
        assert [[one.name for one in job.services] for job in file.jobs] == [["db"], ["b-db"]]

    def test_conditions_and_runners(self) -> None:
        job = _one(
            "runs-on: [self-hosted, big]\nif: github.event_name == 'push'\npermissions: {}\nenvironment: prod",
            "left out: github.event_name == 'push' is no condition that is known here",
            "environment: left out: it has no meaning here",
        )
        assert (job.rootfs.kind, job.rootfs.name) == ("host", "big")

    def test_needs_that_go_round(self) -> None:
        text = "jobs: {a: {runs-on: x, needs: b, steps: [{run: x}]}, b: {runs-on: x, needs: a, steps: [{run: x}]}}"
        found = _convert(text)
        assert len(found.warnings) == 2
        assert [job.needs for job in _loaded(found).jobs] == [(), ()]

    def test_a_job_that_would_be_wrong_is_left_out_by_itself(self) -> None:
        text = """
            jobs:
              a: {runs-on: ubuntu-latest, timeout-minutes: soon, steps: [{run: x}]}
              b: {uses: ./.github/workflows/other.yml}
              c: {container: "No Image!", steps: [{run: x}]}
              d: {runs-on: ubuntu-latest, steps: 5}
              e: {runs-on: ubuntu-latest, artifacts: 1, services: {"a b": {image: x}}, steps: [{run: "\\0"}]}
              good: {runs-on: ubuntu-latest, needs: [a], steps: [{run: x}]}
            """
        found = _convert(text)
        (job,) = _loaded(found).jobs
        assert job.key == "good"
        left = "".join(found.warnings)
        for key in "abcde":
            assert f"jobs.{key}" in left

    def test_two_that_differ_in_case_alone(self) -> None:
        text = """
            jobs:
              Build: {runs-on: ubuntu-latest, steps: [{run: x}]}
              build: {runs-on: ubuntu-latest, steps: [{run: y}]}
              BUILD-2: {runs-on: ubuntu-latest, steps: [{run: z}]}
              last: {runs-on: ubuntu-latest, needs: [build], steps: [{run: x}]}
            """
        file = _jobs(text, "it is build-3 here: another job is called Build")
        assert [job.id for job in file.jobs] == ["Build", "build-3", "BUILD-2", "last"]
        assert file.jobs[-1].needs == ("build-3",)

    def test_what_is_wrong_together_alone(self) -> None:
        """Each is right by itself, but they are too many: those that were too many are left out, and are not needed."""
        job = "{runs-on: ubuntu-latest, strategy: {matrix: {v: [1, 2, 3]}}, steps: [{run: x}]}"
        small = "{runs-on: ubuntu-latest, needs: [b, a], steps: [{run: x}]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("guntainer.jobs.load._MOST_JOBS", 5)
            file = _jobs(
                f"jobs: {{a: {job}, b: {job}, c: {small}, d: {job}, e: {small}}}",
                "jobs.b: left out: jobs.b.matrix: the file has more than 5 jobs",
                'jobs.c.needs: "b" is left out',
                "jobs.d: left out: jobs.d.matrix: the file has more than 5 jobs",
                'jobs.e.needs: "b" is left out',
            )
        assert {job.key: job.needs[:1] for job in file.jobs} == {"a": (), "c": ("a (1)",), "e": ("a (1)",)}

    def test_services_of_one_name_in_a_job_that_no_host_can_be_called(self) -> None:
        file = _jobs(
            """
            jobs:
              a: {runs-on: ubuntu-latest, services: {db: {image: postgres}}, steps: [{run: x}]}
              b_c_: {runs-on: ubuntu-latest, services: {db: {image: mysql}}, steps: [{run: x}]}
            """,
            "its host name is b-c-db: another job's service is called db",
        )
        assert [[one.name for one in job.services] for job in file.jobs] == [["db"], ["b-c-db"]]

    def test_a_variable_of_a_service_that_is_none(self) -> None:
        job = _one(
            'services: {db: {image: x, env: {"A B": 1, C: 2}}}',
            'db.env."A B": left out: "A B" can not name a variable: expected letters, digits and _',
        )
        assert dict(job.services[0].job.env) == {"C": "2"}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "5",
            "a: 1",
            "jobs: 5",
            "jobs: {}",
            "jobs: {a: 5}",
            "jobs: [",
            "a: &a [*a]",
            "\0",
            "jobs: {a: {b: !!x 1}}",
        ],
    )
    def test_no_workflow(self, text: str) -> None:
        with pytest.raises(JobFileError) as caught:
            convert(text.encode(), name="ci.yml")
        assert caught.value.exit_code == 2
        assert all(line.startswith("ci.yml:") for line in caught.value.problems)

    def test_an_alias_bomb(self) -> None:
        levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        with pytest.raises(JobFileError, match="alias bomb"):
            convert("\n".join(levels).encode(), name="ci.yml")

    @pytest.mark.parametrize(
        "hostile",
        [
            "'''",
            '"""',
            "\\",
            '"',
            "${{",
            "}}",
            "\u2028",
            "\x1b[31m",
            "END_OF_STEP",
            "# \nrm",
            "a\r\nb",
            "é",
            "[jobs.x]",
            "\x7f",
        ],
    )
    def test_whatever_a_text_holds_the_file_can_be_read(self, hostile: str) -> None:
        text = json.dumps(
            {
                "env": {"A": hostile},
                "jobs": {
                    "j": {
                        "name": hostile,
                        "runs-on": ["x", hostile],
                        "if": hostile,
                        "strategy": {"matrix": {"a": [hostile]}},
                        "continue-on-error": hostile,
                        "env": {"B": hostile},
                        "steps": [
                            {"name": hostile, "run": hostile, "env": {"C": hostile}, "working-directory": hostile},
                            {"uses": hostile, "with": {hostile: hostile}},
                            {"name": hostile, "run": "x\n" + hostile, "if": hostile},
                        ],
                    },
                    "other": {"runs-on": hostile, "steps": [{"run": "true"}]},
                    "good": {"runs-on": "ubuntu-latest", "steps": [{"run": "true"}]},
                },
            }
        )
        found = convert(text.encode(), name="ci.yml")
        tomllib.loads(found.text)
        assert "good" in {job.key for job in _loaded(found).jobs}


WORDS = st.sampled_from(
    [
        "a",
        "b",
        "os",
        "x y",
        "",
        "ubuntu-latest",
        "windows-latest",
        "always()",
        "${{ matrix.os }}",
        "${{ env.A }}",
        "${{",
        "'''",
    ]
)
VALUES = st.recursive(
    st.one_of(WORDS, st.integers(-2, 5), st.booleans(), st.none(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
KEYS = (
    "runs-on",
    "container",
    "services",
    "needs",
    "if",
    "timeout-minutes",
    "continue-on-error",
    "env",
    "strategy",
    "defaults",
)
STEP_KEYS = ("name", "if", "env", "shell", "uses", "with", "working-directory", "continue-on-error")
STEP = st.one_of(
    VALUES,
    st.fixed_dictionaries({"run": WORDS}, optional=dict.fromkeys(STEP_KEYS, VALUES)),
)
JOB = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {"steps": st.lists(STEP, max_size=3)},
        optional={**dict.fromkeys(KEYS, VALUES), "strategy": st.fixed_dictionaries({"matrix": VALUES})},
    ),
)


@given(
    st.fixed_dictionaries(
        {"jobs": st.dictionaries(st.sampled_from(["a", "b", "A", "c d"]), JOB, max_size=3)}, optional={"env": VALUES}
    )
)
def test_any_workflow_becomes_a_file_that_can_be_read(workflow: dict[str, object]) -> None:
    try:
        found = convert(json.dumps(workflow).encode(), name="ci.yml")
    except JobFileError as error:
        assert all(line.isprintable() for line in error.problems)
        return
    assert _loaded(found).jobs
    assert all(line.isprintable() for line in found.warnings)
