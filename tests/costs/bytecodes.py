"""The bytecodes that Python executes in a call: the same number each time, on every machine.

They depend on the minor version of Python and on the libraries, and are blind to code in C.
"""

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import TraceFunction

if sys.version_info >= (3, 12):

    def count(call: Callable[[], object]) -> int:
        """The bytecodes of a call, with those of all functions that it calls."""
        executed = 0

        def add(_code: CodeType, _offset: int) -> None:
            nonlocal executed
            executed += 1

        monitoring = sys.monitoring
        tool, instruction = monitoring.PROFILER_ID, monitoring.events.INSTRUCTION
        monitoring.use_tool_id(tool, "costs")
        monitoring.register_callback(tool, instruction, add)
        monitoring.set_events(tool, instruction)
        try:
            call()
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)
        return executed

else:

    def count(call: Callable[[], object]) -> int:
        """The bytecodes of a call, with those of all functions that it calls."""
        executed = 0

        def trace(_frame: FrameType, event: str, _argument: object) -> "TraceFunction":
            nonlocal executed
            executed += event == "opcode"
            return trace

        def enter(frame: FrameType, _event: str, _argument: object) -> "TraceFunction":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return trace

        before = sys.gettrace()
        sys.settrace(enter)
        try:
            call()
        finally:
            sys.settrace(before)
        return executed
