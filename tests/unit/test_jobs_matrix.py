"""Matrix cells, by GitHub's rules, and expressions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer.errors import JobFileError
from guntainer.jobs.load import JobFile, load

HEAD = '[jobs.j]\nrootfs = "./r"\ncommand = ["c", "{command}"]\n[jobs.j.matrix]\n'


def _load(matrix: str, command: str = "x", **options: int) -> JobFile:
    text = HEAD.replace("{command}", command) + matrix
    return load(text.encode(), path="f.toml", base="/b", **options)  # type: ignore[arg-type]


def _problems(matrix: str, command: str = "x", **options: int) -> tuple[str, ...]:
    with pytest.raises(JobFileError) as caught:
        _load(matrix, command, **options)
    return caught.value.problems


def _ids(matrix: str) -> list[str]:
    return [job.id for job in _load(matrix).jobs]


def test_the_product_is_in_written_order() -> None:
    found = _load('b = ["x", "y"]\na = [2, 1]\n').jobs
    assert [job.id for job in found] == ["j (x, 2)", "j (x, 1)", "j (y, 2)", "j (y, 1)"]
    assert found[1].matrix == (("b", "x"), ("a", "1"))
    assert {job.key for job in found} == {"j"}


def test_githubs_own_example_of_include() -> None:
    found = _load(
        'fruit = ["apple", "pear"]\nanimal = ["cat", "dog"]\n'
        "include = [\n"
        '  {color = "green"}, {color = "pink", animal = "cat"}, {fruit = "apple", shape = "circle"},\n'
        '  {fruit = "banana"}, {fruit = "banana", animal = "cat"},\n]\n'
    ).jobs
    assert [dict(job.matrix) for job in found] == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert found[0].id == "j (apple, cat)"
    assert [job.id for job in found[4:]] == ["j (banana)", "j (banana, cat)"]


def test_exclude_comes_first_and_matches_in_part() -> None:
    assert _ids('a = [1, 2]\nb = [1, 2]\nexclude = [{a = 1}]\ninclude = [{a = 1, b = 1}]\n') == [
        "j (2, 1)", "j (2, 2)", "j (1, 1)",
    ]  # fmt: skip


def test_an_exclude_without_effect_is_a_warning() -> None:
    found = _load("a = [1, 2]\nb = [1]\nexclude = [{a = 2, b = 3},\n {a = 1}]\n")
    assert [job.id for job in found.jobs] == ["j (2, 1)"]
    assert found.warnings == ("f.toml:7:12: jobs.j.matrix.exclude[0]: this exclude matches no cell",)


def test_include_alone_makes_cells() -> None:
    assert _ids('include = [{x = "1"}, {x = "2", y = "3"}]\n') == ["j (1)", "j (2, 3)"]


def test_a_number_is_the_text_it_was_written_with() -> None:
    assert _ids("a = [3.10, 1.0, 1_000, true, 2024-01-02, 0x10]\n") == [
        "j (3.10)", "j (1.0)", "j (1000)", "j (true)", "j (2024-01-02)", "j (16)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("", "f.toml:4:1: jobs.j.matrix: expected a table of axes"),
        ("a = []\n", "f.toml:5:1: jobs.j.matrix.a: the axis is empty"),
        ('a = "x"\n', "f.toml:5:1: jobs.j.matrix.a: expected a list of values"),
        ('inclde = {a = 1}\n', 'f.toml:5:1: jobs.j.matrix.inclde: expected a list of values (did you mean "include"?)'),
        ("a = [1, [2]]\n", "f.toml:5:9: jobs.j.matrix.a[1]: expected a text, a number, true or false"),
        ("a = [1, 07:32:00]\n", "f.toml:5:9: jobs.j.matrix.a[1]: expected a text, a number, true or false"),
        ('a = [1, "1"]\n', 'f.toml:5:9: jobs.j.matrix.a[1]: "1" is in this axis twice'),
        ('"a b" = [1]\n', 'f.toml:5:1: jobs.j.matrix."a b": "a b" can not name an axis'),
        ("a = [1]\nexclude = [{a = 1}]\n", "f.toml:6:1: jobs.j.matrix.exclude: no cell of the matrix is left"),
        ("round = [1]\nexclude = [{rond = 1}]\n", 'f.toml:6:13: jobs.j.matrix.exclude[0].rond: "rond" is not an axis of'
         ' this matrix (did you mean "round"?)'),
        ("a = [1]\nexclude = {a = 1}\n", "f.toml:6:1: jobs.j.matrix.exclude: expected a list of tables"),
        ("a = [1]\ninclude = [{}]\n", "f.toml:6:12: jobs.j.matrix.include[0]: expected a table"),
        ("a = [1]\ninclude = [{b = []}]\n", "f.toml:6:13: jobs.j.matrix.include[0].b: expected a text, a number"),
        ('a = ["${{ matrix.b }}"]\n', "f.toml:5:6: jobs.j.matrix.a[0]: a value of the matrix can not refer to"),
        ('a = ["x, y", "x"]\nb = ["y, z", "z"]\n', 'f.toml:4:1: jobs.j.matrix: two jobs would be called "j (x, y, z)"'),
        ('a = ["x", "X"]\n', 'f.toml:4:1: jobs.j.matrix: two jobs would be called "j (X)" and "j (x)"'),
    ],
)  # fmt: skip
def test_bad_matrices(matrix: str, message: str) -> None:
    (problem,) = _problems(matrix)
    assert problem.startswith(message)


def test_the_cap() -> None:
    axes = "".join(f"{name} = {list(range(8))}\n" for name in "abc")
    assert len(_load(axes, max_cells=512).jobs) == 512
    assert _problems(axes, max_cells=511) == ("f.toml:4:1: jobs.j.matrix: the matrix has 512 cells, more than 511",)
    huge = "".join(f"{name} = {list(range(100))}\n" for name in "abcdefgh")
    assert _problems(huge) == (f"f.toml:4:1: jobs.j.matrix: the matrix has {100**8} cells, more than 1024",)
    assert len(_load(axes + "exclude = [" + "{a = 0}, {a = 1}, {a = 2}]\n", max_cells=320).jobs) == 320


def test_expressions_go_into_every_text() -> None:
    text = """
[rootfs.alpine-1]
source = "a.tar"
[jobs.j]
rootfs = "${{ matrix.r }}"
command = ["echo", "${{matrix.r}}-${{ matrix.t }}", "${{ matrix.t }}"]
env = { R = "<${{ matrix.r }}>" }
volumes = ["${{ matrix.v }}:/v", {source = "./${{ matrix.v }}", target = "/w"}]
timeout = "${{ matrix.t }}"
repeat = "${{ matrix.n }}"
init = "${{ matrix.i }}"
hostname = "h${{ matrix.t }}"
[jobs.j.matrix]
r = ["alpine-1"]
v = ["src"]
t = [5]
n = [2]
i = [true]
"""
    found = load(text.encode(), path="f.toml", base="/b").jobs
    assert [job.id for job in found] == ["j (alpine-1, src, 5, 2, true) #1", "j (alpine-1, src, 5, 2, true) #2"]
    job = found[0]
    assert job.rootfs.location == "/b/a.tar"
    assert job.command == ("echo", "alpine-1-5", "5")
    assert dict(job.env) == {"R": "<alpine-1>"}
    assert [mount.source for mount in job.mounts] == ["/b/src", "/b/src"]
    assert (job.timeout_s, job.init, job.hostname) == (5, True, "h5")
    assert all(type(item) is str for item in job.command)


def test_the_word_null_is_a_text() -> None:
    assert [job.command[1] for job in _load('m = ["null", "~"]\n', "${{ matrix.m }}").jobs] == ["null", "~"]


def test_a_name_without_a_value_in_this_cell_is_empty() -> None:
    found = _load('a = [1, 2]\ninclude = [{a = 2, note = "n"}]\n', "<${{ matrix.note }}>").jobs
    assert [job.command[1] for job in found] == ["<>", "<n>"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("${{ matrix.rond }}", 'the matrix has no "rond", only round, b (did you mean "round"?)'),
        ("${{ matrix.round", '"${{" without its "}}"'),
        ("${{ matrix }}", '"${{ matrix }}" is not an expression'),
        ("${{ env.CI }}", '"${{ env.CI }}" is not an expression'),
        ("${{ matrix.round + 1 }}", "is not an expression"),
        ("${{}}", "is not an expression"),
        ("${{ matrix.round }} ${{", '"${{" without its "}}"'),
    ],
)
def test_bad_expressions_are_told_once(command: str, message: str) -> None:
    (problem,) = _problems("round = [1, 2, 3]\nb = [1, 2]\n", command)
    assert problem.startswith("f.toml:3:17: jobs.j.command[1]: ")
    assert message in problem


def test_an_expression_needs_a_matrix() -> None:
    text = b'[defaults.env]\nA = "${{ matrix.a }}"\n[jobs.j]\nrootfs = "./r"\nrun = "x"\n'
    with pytest.raises(JobFileError) as caught:
        load(text, path="f.toml", base="/b")
    assert caught.value.problems == ('f.toml:2:1: defaults.env.A: "${{ matrix.a }}": this job has no matrix',)


def test_what_all_cells_share_can_not_vary() -> None:
    text = HEAD.replace("[jobs.j.matrix]", 'max-parallel = "${{ matrix.a }}"\n[jobs.j.matrix]') + "a = [1, 2]\n"
    with pytest.raises(JobFileError, match=r"f.toml:4:1: jobs.j.max-parallel: all cells have it in common"):
        load(text.encode(), path="f.toml", base="/b")


def test_a_value_that_fits_no_field_is_told_for_each_value() -> None:
    text = HEAD.replace("[jobs.j.matrix]", 'timeout = "${{ matrix.a }}"\n[jobs.j.matrix]') + 'a = ["x", 1, "y"]\n'
    with pytest.raises(JobFileError) as caught:
        load(text.encode(), path="f.toml", base="/b")
    assert [problem.endswith(f'got "{value}"') for problem, value in zip(caught.value.problems, "xy", strict=True)] == [
        True,
        True,
    ]


def test_a_text_can_not_grow_without_bound() -> None:
    matrix = f'a = ["{"x" * 100_000}"]\n'
    assert "grows too long" in _problems(matrix, "${{ matrix.a }}" * 100)[0]


_values = st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)
_axes = st.dictionaries(st.sampled_from("abc"), _values, min_size=1, max_size=3)
_entries = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), min_size=1, max_size=3), max_size=3)


@given(_axes, _entries)
def test_exclude_is_the_product_without_what_matches(
    axes: dict[str, list[int]], excludes: list[dict[str, int]]
) -> None:
    excludes = [entry for entry in excludes if set(entry) <= set(axes)]
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    expected = [cell for cell in product if not any(entry.items() <= cell.items() for entry in excludes)]
    lines = "".join(f"{name} = {values}\n" for name, values in axes.items())
    tables = ", ".join("{" + ", ".join(f"{k} = {v}" for k, v in entry.items()) + "}" for entry in excludes)
    matrix = f"{lines}exclude = [{tables}]\n"
    if expected:
        found = [{k: int(v) for k, v in job.matrix} for job in _load(matrix).jobs]
        assert found == expected
    else:
        assert "no cell of the matrix is left" in _problems(matrix)[0]


def test_a_long_value_makes_a_short_name() -> None:
    """A name is repeated for every job, the value is not."""
    long = "a" * 50_000
    text = f'[jobs.a]\nrootfs = "x"\ncommand = ["true"]\n[jobs.a.matrix]\nk = ["{long}", "{long}b"]\n'
    jobs = load(text.encode(), path="jobs.toml", base="/").jobs
    assert all(len(job.id) < 150 for job in jobs) and jobs[0].id != jobs[1].id
    assert [len(job.matrix[0][1]) for job in jobs] == [50_000, 50_001]
