"""A filter of system calls: what no exercise needs, and what would take memory where nobody counts it.

A process's memory shows in /proc, a temporary folder's in statvfs. Memory files, System V memory, message queues,
huge pages and shared anonymous mappings show in neither, so they are refused, as are new namespaces (a user namespace
would allow a temporary folder of its own), tracing others, and the kernel's rarer doors. Sockets are for processes of
the same sandbox: of the other families some know no network namespace (vsock reaches the host of a virtual machine).
The program is classic BPF, see seccomp(2).
"""

from __future__ import annotations

import os
import struct

__all__ = ["filter_program"]

EPERM, ENOSYS = 1, 38
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
SHARED_ANONYMOUS, HUGE_PAGES = 0x21, 0x40000  # MAP_SHARED | MAP_ANONYMOUS, MAP_HUGETLB
AF_UNIX, RLIMIT_CORE = 1, 4

# name: number on x86_64, on aarch64 (linux/arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)
REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "pidfd_getfd": (438, 438),
    "syslog": (103, 116),  # reads the kernel's messages where dmesg_restrict is off
    "sched_setaffinity": (203, 122),  # each submission has one core, and leaves the others alone
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
CLONE, CLONE3, MMAP, SOCKET, SETRLIMIT, PRLIMIT = (56, 220), (435, 435), (9, 222), (41, 198), (160, 164), (302, 261)


def filter_program(machine: str | None = None) -> bytes | None:
    """The filter for this machine (as `uname -m` calls it), or None where its system calls are not listed here."""
    if machine is None:
        machine = os.uname().machine
    if machine not in MACHINES:
        return None
    column, architecture = MACHINES[machine]

    def refuse(code: int, value: int, error: int) -> list[tuple[int, int, int, int]]:
        """Returns the error where the loaded word fits, goes on where it does not."""
        return [(code, 0, 1, value), (RETURN, 0, 0, ERRNO | error)]

    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, ERRNO | ENOSYS), (LOAD, 0, 0, 0)]
    if machine == "x86_64":
        lines += refuse(AT_LEAST, 0x40000000, ENOSYS)  # the x32 numbers
    for numbers in REFUSED.values():
        lines += refuse(EQUAL, numbers[column], EPERM)
    # clone3 keeps its flags in memory, where a filter cannot read; without it the C library uses clone
    lines += refuse(EQUAL, CLONE3[column], ENOSYS)
    core = refuse(EQUAL, RLIMIT_CORE, EPERM)  # see sandbox.settled
    for numbers, index, tests in (
        (CLONE, 0, refuse(ANY_BIT, NAMESPACES, EPERM)),
        (SOCKET, 0, [(EQUAL, 1, 0, AF_UNIX), (RETURN, 0, 0, ERRNO | EPERM)]),
        (SETRLIMIT, 0, core),
        (PRLIMIT, 1, core),
        (MMAP, 3, refuse(ANY_BIT, HUGE_PAGES, EPERM)),
        (MMAP, 3, [(AND, 0, 0, SHARED_ANONYMOUS), *refuse(EQUAL, SHARED_ANONYMOUS, EPERM)]),
    ):
        argument = (LOAD, 0, 0, 16 + 8 * index)  # its lower half: both machines are little-endian
        lines += [(EQUAL, 0, len(tests) + 2, numbers[column]), argument, *tests, (LOAD, 0, 0, 0)]
    lines += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)
