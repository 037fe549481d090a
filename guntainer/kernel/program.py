"""Programs of system calls, and the two ways to run one in a clone of this process.

A container's set-up is data: a table of system calls with their arguments, in one block of memory. Where there is machine
code for this processor (x86_64), the clone shares its parent's memory (CLONE_VM), as after vfork(2), and some hundred bytes
of code make the calls: no page of the interpreter is copied, no Python runs, and the cost of a launch is nearly the kernel's
alone. Elsewhere the clone gets its own memory and a loop in Python makes the same calls.

    block:   header, calls, data
    header:  launch id, step, result, fault fd, the results of 16 attempts to exec, 128 bytes of text
    call:    number, six arguments, out, next, next after an error, result, step

`out` is where the result goes besides: usually an argument of a later call, so that a descriptor finds its way. An error
(-4095 … -1) goes to "next after an error"; where that is 0, the header is written to the fault fd and the clone ends with
125. The memory must stay until the clone has executed or ended: CLONE_CHILD_CLEARTID says when (set_tid_address(2)).
"""

from __future__ import annotations

import ctypes
import os
import struct

from guntainer.kernel import abi, machine_code, syscalls

WORD = 8
ATTEMPTS = 16
TEXT_BYTES = 128
HEADER_WORDS = 4 + ATTEMPTS + TEXT_BYTES // WORD
RECORD_BYTES = HEADER_WORDS * WORD
_CALL_WORDS = 12
_OUT, _NEXT, _ON_ERROR, _RESULT, _STEP = 7, 8, 9, 10, 11
_FAILED = 125
_FAULT_FD = 3  # header word


class Result:
    """The result of an earlier call, as an argument of a later one: each result can be used once."""

    __slots__ = ("call",)

    def __init__(self, call: int) -> None:
        self.call = call


class Pointer:
    """An address in the block: of some data, or (`header`) in the header."""

    __slots__ = ("header", "offset")

    def __init__(self, offset: int, *, header: bool = False) -> None:
        self.offset = offset
        self.header = header


TYPE_CHECKING = False
if TYPE_CHECKING:
    Argument = int | bytes | str | Result | Pointer


class Program:
    """A table of system calls under construction, then a block of memory that can be run again and again."""

    def __init__(self, flags: int = 0) -> None:
        self.flags = flags
        """Of clone3(2): the namespaces."""
        self.cgroup: int | None = None
        """Not None: the clone begins in the control group behind the launch's descriptor with this index."""
        self.own_memory = False
        """Whether the clone gets a copy of this process's memory, where it could share it."""
        self._cgroup_fd = 0
        self.words: list[int] = [0] * HEADER_WORDS
        self._data = bytearray()
        self._data_at: list[int] = []  # words that are offsets into the data
        self._block_at: list[int] = []  # words that are offsets into the block
        self._labels: dict[int, list[int]] = {}
        self._fd_at: list[tuple[int, int]] = []
        self._fault_at: list[int] = []  # words that are the fault pipe's descriptor
        self._gate_at: tuple[int, int] | None = None  # words that are the two ends of the gate
        self.maps: tuple[str, str] | None = None
        """What whoever clones writes to the clone's uid_map and gid_map, before it opens the gate."""
        self._data_pointers: list[tuple[int, int]] = []  # places in the data that point to others in it
        self._known: dict[bytes, int] = {}
        self._block: ctypes.Array[ctypes.c_int64] | None = None
        self.address = 0
        self.step = 0
        self._maps_step = 0
        self._running = ctypes.c_int(0)

    # -- building

    def data(self, content: bytes | bytearray, *, shared: bool = True) -> Pointer:
        """Put bytes into the block; equal ones share a place unless they are written to."""
        content = bytes(content)
        if shared and content in self._known:
            return Pointer(self._known[content])
        at = len(self._data)
        self._data += content + b"\0" * (-len(content) % WORD or WORD)
        if shared:
            self._known[content] = at
        return Pointer(at)

    def pointers(self, texts: tuple[bytes, ...]) -> Pointer:
        """A NULL-terminated array of C strings, as execve(2) takes it."""
        places = [self.data(text + b"\0").offset for text in texts]
        at = len(self._data)
        self._data += bytes(WORD * (len(places) + 1))
        self._data_pointers += [(at + WORD * number, place) for number, place in enumerate(places)]
        return Pointer(at)

    def rights_message(self, *fds: int) -> Pointer:
        """A struct msghdr that hands over descriptors: sendmsg(2), cmsg(3), unix(7)."""
        sol_socket = scm_rights = 1
        payload = self.data(b"m")
        size = 16 + 4 * len(fds)
        control = self.data(
            size.to_bytes(8, "little")
            + sol_socket.to_bytes(4, "little")
            + scm_rights.to_bytes(4, "little")
            + b"".join(fd.to_bytes(4, "little") for fd in fds)
        )
        vector = self.data(bytes(8) + (1).to_bytes(8, "little"), shared=False)
        header = self.data(
            bytes(24) + (1).to_bytes(8, "little") + bytes(8) + size.to_bytes(8, "little") + bytes(8), shared=False
        )
        self._data_pointers += [
            (vector.offset, payload.offset),
            (header.offset + 16, vector.offset),
            (header.offset + 32, control.offset),
        ]
        return header

    def filter(self, instructions: bytes) -> Pointer:
        """A struct sock_fprog: a count of classic BPF instructions, of 8 bytes each, and where they are: seccomp(2)."""
        program = self.data(instructions)
        at = self.data((len(instructions) // 8).to_bytes(8, "little") + bytes(8), shared=False)
        self._data_pointers.append((at.offset + 8, program.offset))
        return at

    def call(self, name: str, *arguments: Argument, ignore: bool = False, on_error: int | None = None) -> Result:
        """Add a system call.

        Args:
            ignore: go on after an error.
            on_error: a label to go to after an error.
        """
        start = len(self.words)
        self.words += [abi.SYSCALLS[name], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.step]
        for place, argument in enumerate(arguments, start + 1):
            self._argument(place, argument)
        after = start + _CALL_WORDS
        self._to_block(start + _NEXT, after)
        if ignore:
            self._to_block(start + _ON_ERROR, after)
        elif on_error is not None:
            self._labels[on_error].append(start + _ON_ERROR)
        return Result(start)

    def _argument(self, place: int, argument: Argument) -> None:
        if isinstance(argument, int):
            self.words[place] = argument
        elif isinstance(argument, Result):
            self._to_block(argument.call + _OUT, place)
        elif isinstance(argument, Pointer):
            if argument.header:
                self._to_block(place, argument.offset)
            else:
                self.words[place] = argument.offset
                self._data_at.append(place)
        else:
            text = os.fsencode(argument) + b"\0"
            self.words[place] = self.data(text).offset
            self._data_at.append(place)

    def _to_block(self, place: int, word: int) -> None:
        self.words[place] = word * WORD
        self._block_at.append(place)

    def result_to_header(self, result: Result, word: int) -> None:
        """Leave a call's result in the header, for the fault record."""
        self._to_block(result.call + _OUT, word)

    def call_with_fd(self, name: str, place: int, index: int, *arguments: Argument, ignore: bool = False) -> Result:
        """`call`, whose argument number `place` (from 0) is the launch's descriptor with this index."""
        words = list(arguments)
        words.insert(place, 0)
        result = self.call(name, *words, ignore=ignore)
        self._fd_at.append((result.call + 1 + place, index))
        return result

    def move_fault_fd(self, at: int) -> None:
        """Move the descriptor that a fault is written to to the number `at`, close-on-exec; from here on it is written there."""
        moved = self.call("dup3", 0, at, os.O_CLOEXEC)
        self._fault_at.append(moved.call + 1)
        self.result_to_header(moved, _FAULT_FD)

    def wait_for_maps(self, uid_map: str, gid_map: str) -> None:
        """Wait until whoever has cloned has mapped the ids of the new user namespace: at a pipe, the gate."""
        self.maps = (uid_map, gid_map)
        self._maps_step = self.step
        closed = self.call("close", 0)  # our copy of the writing end: at its end the read returns
        read = self.call("read", 0, self.data(bytes(8), shared=False), 1)
        self._gate_at = (read.call + 1, closed.call + 1)

    def label(self) -> int:
        """A place to go to, not known yet."""
        number = len(self._labels)
        self._labels[number] = []
        return number

    def here(self, label: int) -> None:
        """The label's place is the next call."""
        for place in self._labels[label]:
            self._to_block(place, len(self.words))

    def on_error(self, result: Result, label: int) -> None:
        """Go to a label after a call that failed."""
        self._labels[label].append(result.call + _ON_ERROR)

    def jump_to(self, result: Result, label: int) -> None:
        """Go to a label after a call that did NOT fail."""
        self._block_at.remove(result.call + _NEXT)
        self._labels[label].append(result.call + _NEXT)

    def finish(self) -> None:
        """Lay the block out; nothing can be added afterwards."""
        size = len(self.words) * WORD
        self._block = (ctypes.c_int64 * (len(self.words) + len(self._data) // WORD))()
        self.address = ctypes.addressof(self._block)
        base = self.address + size
        words = self.words
        for place in self._block_at:
            words[place] += self.address
        for place in self._data_at:
            words[place] += base
        for at, place in self._data_pointers:
            self._data[at : at + WORD] = (base + place).to_bytes(WORD, "little")
        content = struct.pack(f"{len(words)}q", *words) + bytes(self._data)
        ctypes.memmove(self.address, content, len(content))

    # -- running

    @property
    def busy(self) -> bool:
        """Whether a clone still uses the block."""
        return self._running.value != 0

    def prepare(self, launch_id: int, fault_fd: int, fds: list[int]) -> None:
        """Set what differs from launch to launch."""
        block = self._block
        assert block is not None
        block[0] = launch_id
        block[_FAULT_FD] = fault_fd
        for place in self._fault_at:
            block[place] = fault_fd
        for place, index in self._fd_at:
            block[place] = fds[index]
        if self.cgroup is not None:
            self._cgroup_fd = fds[self.cgroup]

    def prepare_gate(self, read_end: int, write_end: int) -> None:
        """Set the pipe of `wait_for_maps`."""
        assert self._block is not None and self._gate_at is not None
        for place, fd in zip(self._gate_at, (read_end, write_end), strict=True):
            self._block[place] = fd

    def refuse_maps(self, number: int) -> None:
        """Write the fault record of a clone that waits for its maps and will get none: why, as an errno."""
        assert self._block is not None
        self._block[1], self._block[2] = self._maps_step, -number
        self._write_record()

    def _write_record(self) -> None:
        assert self._block is not None
        os.write(self._block[_FAULT_FD], ctypes.string_at(self.address, RECORD_BYTES))

    def launch(self, flags: int, *, exit_signal: int) -> tuple[int, int]:
        """Clone this process and run the block in the clone; returns (pid, pidfd).

        Raises:
            OSError: of clone3(2).
        """
        if _entry is None:
            pid, pidfd = self.clone(flags, exit_signal=exit_signal)
            if pid == 0:
                try:
                    self.interpret()
                finally:
                    os._exit(_FAILED)
            return pid, pidfd
        args = syscalls.clone_args
        args.flags = flags | self._cgroup_flag() | abi.CLONE_PIDFD | abi.CLONE_CLEAR_SIGHAND
        if not self.own_memory:
            self._running.value = 1
            args.flags |= abi.CLONE_VM | abi.CLONE_CHILD_CLEARTID
            args.child_tid = ctypes.addressof(self._running)
        args.exit_signal = exit_signal
        args.cgroup = self._cgroup_fd
        pid = _entry(syscalls.clone_args_address, syscalls.CLONE_ARGS_SIZE, self.address)
        args.child_tid = args.cgroup = 0
        if pid < 0:
            self._running.value = 0
            raise OSError(-pid, os.strerror(-pid))
        return pid, syscalls.pidfd_cell.value

    def clone(self, flags: int, *, exit_signal: int) -> tuple[int, int]:
        """Clone this process, with memory of its own, into the program's control group: as `syscalls.clone3`."""
        more = abi.CLONE_CLEAR_SIGHAND | self._cgroup_flag()
        return syscalls.clone3(flags | more, exit_signal=exit_signal, cgroup=self._cgroup_fd)

    def _cgroup_flag(self) -> int:
        return 0 if self.cgroup is None else abi.CLONE_INTO_CGROUP

    def interpret(self) -> None:
        """Make the calls from Python: what the machine code does, in a clone that has its own memory.

        Returns after the last call of a program that does not exec; never returns from one that does.
        """
        block = self._block
        assert block is not None
        at = HEADER_WORDS
        while at < len(self.words):
            result = syscalls.raw(*block[at : at + 7])
            block[at + _RESULT] = result
            if block[at + _OUT]:
                ctypes.c_int64.from_address(block[at + _OUT]).value = result
            following = block[at + _NEXT] if result >= 0 else block[at + _ON_ERROR]
            if not following:
                block[1], block[2] = block[at + _STEP], result
                self._write_record()
                os._exit(_FAILED)
            at = (following - self.address) // WORD


_entry = machine_code.load()


def has_machine_code() -> bool:
    """Whether programs run as machine code here; else a loop in Python makes their calls."""
    return _entry is not None
