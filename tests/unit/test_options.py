"""The quick reader of options: whatever it takes, argparse takes in the same way; whatever it is not sure of, it leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors
from guntainer.cli import batch, habits, options, run_options
from guntainer.cli.parsing import read_slowly

NAMES = [name for option in run_options.OPTIONS for name in option.names if option.name != "help"]
WORDS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES).map(lambda name: name + "=value"),
    st.sampled_from(
        ["-it", "-eA=B", "-e=x", "-u0", "--", "-", "", "-5", "--nosuch", "--en", "value", "A=B", "info", "json", "full"]
    ),
)


@given(st.lists(WORDS, max_size=8))
def test_agrees_with_argparse(words: list[str]) -> None:
    words = [*words, "rootfs", "command", "--", "-x"]
    quick = options.read(run_options.OPTIONS, words)
    if quick is None:
        return
    slow = read_slowly(run_options.parser(), words, positional="ROOTFS")
    assert slow is not None
    assert vars(quick[0]) == vars(slow[0])
    assert quick[1] == slow[1]


def test_plain_command_lines_are_read_quickly() -> None:
    read = options.read(
        run_options.OPTIONS, ["-v", "a:/b", "--env", "A=1", "-e", "B", "--timeout=3", "-q", "x.tar", "-e", "--", "y"]
    )
    assert read is not None
    args, rest = read
    assert (args.volume, args.env, args.timeout, args.quiet, args.user) == (["a:/b"], ["A=1", "B"], "3", True, None)
    assert rest == ["x.tar", "-e", "--", "y"]
    files = options.read(batch.OPTIONS, ["jobs.toml", "-j", "4", "--only", "a*"], interleaved=True)
    assert files is not None and files[1] == ["jobs.toml"] and files[0].only == ["a*"]


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["--timout", "3", "x"], "did you mean --timeout?"),
        (["--bogus", "x"], "unknown option '--bogus'"),
        (["--log-level", "loud", "x"], "loud"),
        (["--quiet=yes", "x"], "--quiet takes no value, got 'yes'"),
        (["-itd", "x"], "-itd: unknown option '-d': a run stays in the foreground"),
        (["-dit", "x"], "unknown option '-dit': a run stays in the foreground"),
        (["-e"], "-e"),
        (["--device=/dev/kvm", "x"], "'--device': a device that you may open yourself can be bound: -v /dev/X:/dev/X"),
        (["--net", "host", "x"], "unknown option '--net': here it is --network"),
        (["-net", "host", "x"], "unknown option '-net': here it is --network"),
        (["--cpu=1", "x"], "here it is --cpus"),
        (["--mem=1g", "x"], "here it is --memory"),
        (["--cap", "ALL", "x"], "here it is --cap-add or --cap-drop"),
        (["--pid=host", "x"], "a container has one of its own here"),
        (["--cgroupns=host", "x"], "a container has one of its own here"),
        (["--gpus", "all", "x"], "unknown option '--gpus': it has no counterpart here"),
        (["--volume-driver=x", "x"], "unknown option '--volume-driver': it has no counterpart here"),
        (["--image=x", "x"], "ROOTFS itself may be an image"),
        ([], "ROOTFS is missing"),
    ],
)
def test_mistakes_are_told_by_argparse(words: list[str], say: str) -> None:
    assert options.read(run_options.OPTIONS, words) is None or not words
    with pytest.raises(errors.UsageError, match=say):
        read_slowly(run_options.parser(), words, positional="ROOTFS")


def test_habits_name_options_that_there_are() -> None:
    """What stands in for another tool's option must itself be one; and no option of ours is called unknown."""
    ours = {name for option in run_options.OPTIONS for name in option.names}
    assert not ours & {*habits.OF_RUN, *habits.WITHOUT} and not habits.OF_RUN.keys() & habits.WITHOUT
    for said in habits.OF_RUN.values():
        assert {word for word in said.replace(",", "").split() if word.startswith("-")} <= ours, said


def test_options_of_run_are_keys_of_a_job() -> None:
    with pytest.raises(errors.UsageError, match="'--memory': an option of run; a job file has most of them as keys"):
        batch.parser().parse(["--memory", "5m"])


def test_near_names_are_near() -> None:
    """No guess is better than a far one."""
    for words in (["--bogus"], ["--device"], ["-d"], ["--detatch"], ["--uts"], ["--expose"]):
        with pytest.raises(errors.UsageError) as caught:
            read_slowly(run_options.parser(), [*words, "x"], positional="ROOTFS")
        assert "did you mean" not in str(caught.value)
