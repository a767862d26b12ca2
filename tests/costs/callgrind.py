"""Instructions of the CPU, counted by valgrind's callgrind.

A process under valgrind controls it with a sequence of instructions that changes nothing
elsewhere. valgrind defines the sequence for C, in `valgrind.h`; `_SEQUENCE` is the one for x86-64.
So the start of Python is not counted, and takes 4 s instead of 20.
"""

import ctypes
import mmap
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

_DUMP, _ZERO, _START = (0x43540000 + number for number in (0, 1, 4))
"""Requests of `callgrind.h`."""

_SEQUENCE: Final = bytes.fromhex(
    "4889f8"  # mov rax, rdi: the address of the request
    "31d2"  # xor edx, edx: the answer without valgrind
    "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi by 3, 13, 61, 51: rdi is what it was
    "4887db"  # xchg rbx, rbx
    "4889d0 c3"  # mov rax, rdx; ret
)


def unavailable() -> str:
    """Why this machine cannot count instructions; empty when it can."""
    if platform.machine() != "x86_64":
        return f"instructions are counted on x86_64 only, not on {platform.machine()}"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    return ""


def command(directory: Path) -> list[str]:
    """The beginning of a command whose process counts with `Counter(directory)`."""
    return [
        *("valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"),
        f"--callgrind-out-file={directory / 'out'}",
    ]


class Counter:
    """Counts instructions of this process, which `command` has started.

    Args:
        directory: where callgrind writes a file for each count.
    """

    def __init__(self, directory: Path) -> None:
        self._out = directory / "out"
        self._counts = 0
        rights = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=rights)
        self._code.write(_SEQUENCE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)
        self._ask(_START)

    def count(self, call: Callable[[], object]) -> int:
        """The instructions of a call."""
        self._ask(_ZERO)
        call()
        self._ask(_DUMP)
        self._counts += 1
        dump = self._out.with_suffix(f".{self._counts}").read_text()
        found = re.search(r"^totals: (\d+)", dump, re.MULTILINE)
        if found is None:
            raise AssertionError(dump)
        return int(found[1])

    def _ask(self, request: int) -> None:
        words = (ctypes.c_uint64 * 6)(request)
        self._call(ctypes.addressof(words))
