"""What one submission may use.

All numbers are upper bounds on the whole tree of its processes, the time is that of the clock on the wall.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DEFAULT", "Limits"]

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """seconds of the clock; memory, output, file_size in bytes; processes (threads count too); files by number.

    A tree that reaches `processes` is ended; the kernel lets one more through at most. `memory` bounds the sum over
    all processes together with the temporary folder, and also the addresses of each process, but for those that
    libraries reserve. `output` bounds what is printed, and as many bytes again of answers. `file_size` bounds all
    files together.

    Raises: ValueError where a limit is no whole number (seconds: no number) or too small to start Python at all.
    """

    seconds: float = 120.0
    memory: int = 3072 * MIB
    processes: int = 64
    output: int = 8 * MIB
    files: int = 1000
    file_size: int = 64 * MIB

    def __post_init__(self) -> None:
        least = {"seconds": 0.1, "memory": 64 * MIB, "processes": 4, "output": 1024, "files": 16, "file_size": 65536}
        most = {"seconds": 86400, "processes": 10_000, "files": 1_000_000}
        most |= dict.fromkeys(("memory", "output", "file_size"), 2**50)
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            kinds = (int, float) if name == "seconds" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds):
                number = "a number" if name == "seconds" else "a whole number"
                raise ValueError(f"the limit {name} = {value!r} is not {number}")
            if not least[name] <= value <= most[name]:
                allowed = f"from {least[name]} to {most[name]}"
                raise ValueError(f"the limit {name} = {value} is out of range; it may be {allowed}")


DEFAULT = Limits()
