"""Each limit and each wall of the sandbox, held both by control groups and by counting in /proc."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from inside import MIB, ROOT, SMALL, WATCHES, both, fresh_uid, owned_by, python, sandboxed

from grading import groups, held, jail, sandbox, syscalls, talk
from grading.limits import Limits
from grading.sandbox import Unavailable, run

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

pytestmark = sandboxed

BOMB = """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
except OSError:
    print(count, flush=True)
    time.sleep({wait})
    os._exit(0)
"""


@both
def test_a_fork_bomb_is_held_below_the_limit_and_ended(watch):
    uid = fresh_uid()
    outcome = python(BOMB.format(wait=60), watch=watch, uid=uid)
    assert outcome.status == "too many processes"
    assert outcome.processes <= SMALL.processes + 1
    assert not owned_by(uid)


def test_the_kernel_alone_holds_a_fork_bomb():
    """Without anybody looking, the forks that go through are no more than the limit."""
    uid = fresh_uid()
    command = [os.path.abspath(sys.executable), "-I", "-S", "-c", BOMB.format(wait=0)]
    with held.Held(lambda control: [*jail.jail(control, {}, SMALL, uid), *command], None) as started:
        status, stdout, _, _ = started.watched(b"", SMALL, lambda used: "")
    assert status == ""
    assert SMALL.processes - 1 <= int(stdout) <= SMALL.processes


@both
def test_threads_are_processes_too(watch):
    outcome = python(
        """
        import threading, time
        try:
            for _ in range(100):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            time.sleep(600)
        """,
        watch=watch,
        limits=Limits(seconds=20, memory=1024 * MIB, processes=16),
    )
    assert outcome.status == "too many processes"


@both
def test_one_process_cannot_take_more_than_the_memory(watch):
    outcome = python(
        """
        try:
            bytearray(300 * 2**20)
        except MemoryError:
            print("no memory")
        """,
        watch=watch,
    )
    assert (outcome.status, outcome.stdout) == ("ended", b"no memory\n")
    assert outcome.memory < SMALL.memory


@both
def test_an_allocation_bomb_over_several_processes_is_ended(watch):
    outcome = python(
        """
        import os, time
        for _ in range(10):
            if os.fork() == 0:
                parts = []
                while len(parts) < 80:
                    parts.append(bytearray(os.urandom(1)) * 2**20)
                time.sleep(600)
        os.wait()
        os.write(1, b"one fell and another went on")
        time.sleep(600)
        """,
        watch=watch,
    )
    assert (outcome.status, outcome.stdout) == ("out of memory", b"")
    assert outcome.memory < 2 * SMALL.memory


@both
def test_memory_is_seen_behind_a_first_thread_that_ended(watch):
    """Such a process shows none of its own in /proc: only its other threads do."""
    outcome = python(
        """
        import ctypes, os, threading, time

        def hold():
            time.sleep(0.3)
            parts = bytearray(os.urandom(1)) * (100 * 2**20)
            time.sleep(600)

        for _ in range(8):
            if os.fork() == 0:
                threading.Thread(target=hold).start()
                ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
        time.sleep(600)
        """,
        watch=watch,
    )
    assert outcome.status == "out of memory"


@both
def test_memory_in_sockets_counts(watch):
    outcome = python(
        """
        import os, socket, time
        for _ in range(10):
            if os.fork() == 0:
                kept = []
                try:
                    while True:
                        kept += socket.socketpair()
                        for end in kept[-2:]:
                            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
                            end.setblocking(False)
                            try:
                                while True:
                                    end.send(bytes(2**16))
                            except BlockingIOError:
                                pass
                except OSError:
                    time.sleep(600)
        time.sleep(600)
        """,
        watch=watch,
    )
    assert outcome.status == "out of memory"


@both
def test_a_few_sockets_are_no_harm(watch):
    outcome = python(
        """
        import asyncio
        asyncio.run(asyncio.sleep(0.2))
        print("slept")
        """,
        watch=watch,
    )
    assert (outcome.status, outcome.stdout) == ("ended", b"slept\n")


@both
def test_shared_pages_are_counted_once(watch):
    """Eight forks that read 60 MiB of their parent's use 60 MiB."""
    outcome = python(
        """
        import os
        data = bytearray(os.urandom(1)) * (60 * 2**20)
        children = []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                sum(data[::4096])
                import time; time.sleep(0.5)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        """,
        watch=watch,
    )
    assert outcome.status == "ended"


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.memfd_create('x')",
        "import mmap; mmap.mmap(-1, 2**20)",
        "import _posixshmem, os; _posixshmem.shm_open('/x', os.O_CREAT | os.O_RDWR, 0o600)",
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); x = c.shmget(0, 4096, 0o1600); "
        "assert x >= 0, OSError(ctypes.get_errno())",
        "open('/dev/shm/x', 'w')",
        "open('/dev/x', 'w')",
        "open('/x', 'w')",
    ],
)
def test_no_memory_where_nobody_counts(code):
    assert python(code).code == 1


@both
def test_an_endless_loop_is_ended(watch):
    limits = Limits(seconds=0.5, memory=256 * MIB)
    outcome = python("while True: pass", limits, watch)
    assert outcome.status == "timed out"
    assert outcome.seconds < 20


@both
def test_sleeping_children_are_ended(watch):
    """Children that left the session, and whose parents are gone, have no second of their own."""
    uid = fresh_uid()
    outcome = python(
        """
        import os, time
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(600)
                os._exit(0)
        time.sleep(600)
        """,
        Limits(seconds=1, memory=256 * MIB),
        watch,
        uid=uid,
    )
    assert outcome.status == "timed out"
    assert not owned_by(uid)


@both
def test_nothing_outlives_the_command(watch):
    uid = fresh_uid()
    outcome = python(
        """
        import os, signal, time
        for name in range(1, 32):
            if name not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(name, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
        time.sleep(0.1)
        """,
        watch=watch,
        uid=uid,
    )
    assert outcome.status == "ended"
    assert not owned_by(uid)


@both
@pytest.mark.parametrize("stream", [1, 2])
def test_gigabytes_of_output_are_not_kept(watch, stream):
    outcome = python(
        f"""
        import os
        for _ in range(1100):
            os.write({stream}, bytes(2**20))
        """,
        watch=watch,
    )
    assert outcome.status == "too much output"
    assert len(outcome.stdout) <= SMALL.output + 2 * talk.CHUNK
    assert len(outcome.stderr) <= talk.KEPT


@both
def test_many_files_are_ended(watch):
    outcome = python(
        """
        import os
        for number in range(10**7):
            os.close(os.open(f"/tmp/{number}", os.O_CREAT))
        """,
        watch=watch,
    )
    assert outcome.status == "too many files"


@both
@pytest.mark.parametrize(("names", "each"), [(1, 2**30), (40, 2**20)])
def test_files_have_a_size_together(watch, names, each):
    outcome = python(
        f"""
        import os
        total = 0
        try:
            for name in range({names}):
                with open(f"/tmp/{{name}}", "wb", buffering=0) as file:
                    while file.tell() < {each}:
                        total += file.write(bytes(2**16))
        except OSError:
            print(total)
        """,
        watch=watch,
    )
    assert outcome.status == "ended"
    assert 0 < int(outcome.stdout) <= SMALL.file_size


@both
def test_deleted_files_that_are_open_count(watch):
    outcome = python(
        """
        import os
        held = []
        try:
            for name in range(200):
                held.append(os.open(f"/tmp/{name}", os.O_CREAT | os.O_RDWR))
                os.unlink(f"/tmp/{name}")
            import time; time.sleep(600)
        except OSError as error:
            print(error)
        """,
        watch=watch,
    )
    assert outcome.status == "too many files"


def test_no_network():
    """Neither this machine nor another, by address or by an abstract name."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind(f"\0lecturecode-{os.getpid()}")
        named.listen()
        reached: list[str] = []

        def accept(listener: socket.socket) -> None:
            try:
                listener.accept()[0].close()
                reached.append(str(listener))
            except OSError:
                pass

        for listener in (server, named):
            listener.settimeout(3)
            threading.Thread(target=accept, args=(listener,), daemon=True).start()
        outcome = python(
            f"""
            import os, socket
            for family, address in (
                (socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
                (socket.AF_INET, ("192.0.2.1", 80)),
                (socket.AF_INET6, ("2001:db8::1", 80)),
                (socket.AF_UNIX, "\\0lecturecode-{os.getpid()}"),
            ):
                try:
                    socket.socket(family).connect(address)
                    print("connected to", address)
                except OSError:
                    pass
            try:
                socket.getaddrinfo("example.org", 80)
                print("resolved")
            except OSError:
                pass
            print([line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line])
            """
        )
    assert outcome.stdout == b"['lo']\n"
    assert not reached


def test_nothing_else_can_be_read(tmp_path):
    """Solutions, hidden checks, other submissions, the gradebook, homes and the repository are not there."""
    secrets = [tmp_path / name for name in ("solution.ipynb", "checks.py", "gradebook.db", "others/alice.ipynb")]
    (tmp_path / "others").mkdir()
    for secret in secrets:
        secret.write_text("the answer")
        secret.chmod(0o666)
    places = [*secrets, tmp_path, REPOSITORY / "assignments", REPOSITORY / "grading", REPOSITORY / "tests"]
    places += [REPOSITORY / ".git", REPOSITORY / "make.py", REPOSITORY / "book"]
    others = ("/etc/passwd", "/etc/shadow", "/home", "/srv", "/var", "/opt", "/mnt", "/media", "/run", "/sys")
    places += map(Path, others)
    places += [Path.home() / ".ssh", Path.home() / ".bash_history", Path("/usr/share"), Path("/usr/local/share")]
    outcome = python(
        f"""
        import os
        for place in {list(map(str, places))!r}:
            if os.path.lexists(place):
                print("there is", place)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            for name in ("environ", "mem", "maps", "root", "cwd", "fd"):
                try:
                    path = f"/proc/{{pid}}/{{name}}"
                    os.listdir(path) if name in ("root", "cwd", "fd") else open(path, "rb").read(1)
                    if pid != str(os.getpid()) and (pid != '1' or {ROOT}):  # a user's own first process
                        print("could read", path)
                except OSError:
                    pass
        """
    )
    assert outcome.code == 0
    assert outcome.stdout == b""


def test_every_path_is_known():
    """Whatever can be walked to lies in Python, the system's programs and libraries, /proc, /dev or /tmp."""
    known = [*jail.python_folders(), *jail.MERGED, "/proc", "/dev", "/tmp"]
    outcome = python(
        f"""
        import os
        known = {known!r}
        for path, folders, files in os.walk("/"):
            for name in files + folders:
                place = os.path.join(path, name)
                if place not in known and not any(one.startswith(place + "/") for one in known):
                    print(place)
            folders[:] = [name for name in folders if os.path.join(path, name) not in known]
        """
    )
    assert (outcome.code, outcome.stdout) == (0, b"")


def test_nothing_else_can_be_written():
    outcome = python(
        """
        import os
        for line in open("/proc/mounts"):
            kind, place, options = line.split()[0], line.split()[1], line.split()[3].split(",")
            if "ro" not in options and not place.startswith(("/proc", "/dev/")) and place != "/tmp":
                print("writable:", line)
        writable = []
        for path, folders, files in os.walk("/"):
            folders[:] = [] if path.startswith("/proc") or path.endswith("/lib") else folders
            writable += [path] if os.access(path, os.W_OK) else []
        print(writable)
        print(sorted(os.listdir("/tmp")), sorted(os.listdir("/dev")), os.listdir("/proc/self/fd"))
        """
    )
    above = [path.parts[2] for path in map(Path, (sys.prefix, sys.base_prefix)) if path.is_relative_to("/tmp")]
    expected = [
        "['/tmp', '/tmp/matplotlib']",
        f"{sorted({'matplotlib', *above})} ['fd', 'null', 'random', 'urandom'] ['0', '1', '2', '3']",
    ]
    assert outcome.stdout.decode().splitlines() == expected


def test_a_file_shown_is_all_that_is_shown(tmp_path):
    (tmp_path / "shown").write_text("hello")
    (tmp_path / "hidden").write_text("secret")
    outcome = python(
        "import os; print(os.listdir('/task'), open('/task/shown').read()); open('/task/shown', 'a')",
        readable={"/task/shown": tmp_path / "shown"},
    )
    assert outcome.stdout == b"['shown'] hello\n"
    assert outcome.code == 1
    assert (tmp_path / "shown").read_text() == "hello"


def test_the_uid_is_its_own_and_has_no_rights():
    uid = fresh_uid()
    outcome = python(
        """
        import os
        facts = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(os.getresuid(), os.getresgid(), os.getgroups())
        print({facts[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")})
        print(facts["NoNewPrivs"].strip(), facts["Seccomp"].strip())
        for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            try:
                change()
                print("became root")
            except PermissionError:
                pass
        """,
        uid=uid,
    )
    assert outcome.stdout.decode().splitlines()[0].startswith(f"({uid}, {uid}, {uid}) ({uid}, {uid}, {uid}) [")
    assert outcome.stdout.decode().splitlines()[2:] == ["1 2"]
    if ROOT:
        assert outcome.stdout.decode().splitlines()[0].endswith("[]")
        assert outcome.stdout.decode().splitlines()[1] == "{'0000000000000000'}"


def test_every_namespace_and_the_session_are_its_own():
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    outcome = python(
        f"""
        import os, socket
        print(*(os.readlink("/proc/self/ns/" + kind) for kind in {kinds}))
        print(os.getsid(0) > 0, socket.gethostname(), os.getcwd())
        """
    )
    links, rest = outcome.stdout.decode().splitlines()
    assert not set(links.split()) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    assert rest == "True sandbox /tmp"


def test_the_kernel_s_limits_are_those():
    expected = {
        "NPROC": SMALL.processes + 1,
        "AS": SMALL.memory,
        "FSIZE": SMALL.file_size,
        "CPU": SMALL.seconds + 1,
        "NOFILE": 256,
        "MEMLOCK": 65536,
        "MSGQUEUE": 0,
        "STACK": 8 * MIB,
        "SIGPENDING": 1024,
        "RTPRIO": 0,
        "NICE": 0,
    }
    outcome = python(
        f"""
        import resource
        print({{name: set(resource.getrlimit(getattr(resource, "RLIMIT_" + name))) for name in {list(expected)}}})
        """
    )
    assert ast.literal_eval(outcome.stdout.decode()) == {name: {value} for name, value in expected.items()}


def test_limits_are_never_above_the_grader_s(monkeypatch):
    import resource  # not there on Windows

    monkeypatch.setattr(resource, "getrlimit", lambda name: (7, 7) if name == resource.RLIMIT_NICE else (-1, -1))
    assert "--nice=0" in jail.prlimit(SMALL)
    monkeypatch.setattr(resource, "getrlimit", lambda name: (7, 7) if name == resource.RLIMIT_NOFILE else (-1, -1))
    assert "--nofile=7" in jail.prlimit(SMALL)
    assert f"--fsize={SMALL.file_size}" in jail.prlimit(SMALL)


def test_every_refused_call_is_refused():
    names = (
        "ptrace process_vm_readv process_vm_writev kcmp memfd_create memfd_secret shmget shmat msgget semget mq_open "
        "add_key request_key keyctl mount umount2 pivot_root chroot fsopen fsmount fspick open_tree move_mount "
        "mount_setattr unshare setns bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register "
        "pidfd_getfd syslog sched_setaffinity"
    )
    column = 0 if os.uname().machine == "x86_64" else 1
    assert sorted(syscalls.REFUSED) == sorted(names.split())
    outcome = python(
        f"""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for name, numbers in {syscalls.REFUSED}.items():
            if libc.syscall(numbers[{column}], -1, -1, -1, -1, -1, -1) != -1 or ctypes.get_errno() != 1:
                print(name, ctypes.get_errno())
        print("done")
        """
    )
    assert outcome.stdout == b"done\n"


@pytest.mark.skipif(not ROOT, reason="only root gives a submission a real uid of its own")
def test_the_uid_is_real():
    """Seen from outside, not only in the sandbox."""
    uid, seen = fresh_uid(), []

    def see() -> None:
        while not seen and not over.is_set():
            seen.extend(owned_by(uid))
            time.sleep(0.01)

    for seconds in (0.5, 5):  # a busy machine may look too late
        over = threading.Event()
        watcher = threading.Thread(target=see)
        watcher.start()
        python(f"import time; time.sleep({seconds})", uid=uid)
        over.set()
        watcher.join()
        if seen:
            break
    assert seen


def test_signals_reach_nobody_outside():
    """A process outside, of the very same uid, lives on: by its number, by all numbers, and by kill(-1)."""
    uid = fresh_uid()
    command = ["/usr/bin/sleep", "60"]
    if ROOT:
        command = ["/usr/bin/setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *command]
    with subprocess.Popen(command) as canary:
        try:
            outcome = python(
                f"""
                import os, signal
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                for pid in ({canary.pid}, {os.getpid()}, os.getppid(), *range(3, 100_000), -1, 0):
                    try:
                        os.kill(pid, signal.SIGKILL if pid > 0 else signal.SIGTERM)
                        print("killed", pid)
                    except OSError:
                        pass
                """,
                uid=uid,
            )
            assert canary.poll() is None
        finally:
            canary.kill()
    if ROOT:  # to the group, the process's own, a signal can be sent; as a user, to bubblewrap's first process too
        assert outcome.stdout == b"killed 0\n"


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",
        "unshare(0x20000)",
        "mount(b'x', b'/tmp', b'tmpfs', 0, None)",
        "ptrace(16, 1, 0, 0)",
        "setns(0, 0)",
        "syscall(435, 0, 0)",
        "syscall(425, 8, 0)",
        "chroot(b'/tmp')",
    ],
)
def test_doors_of_the_kernel_are_closed(call):
    outcome = python(f"import ctypes; print(ctypes.CDLL(None).{call})")
    assert outcome.stdout == b"-1\n"


@pytest.mark.parametrize(
    "call",
    [
        *(f"socket.socket({family})" for family in (2, 10, 16, 17, 38, 40)),  # IPv4, IPv6, netlink, packet, alg, vsock
        "mmap.mmap(-1, 2**21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)",  # of huge pages
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))",
        "os.sched_setaffinity(0, {0})",
        "call(438, os.pidfd_open(os.getpid()), 0, 0)",  # pidfd_getfd
        "call(103, 10, 0, 0) if os.uname().machine == 'x86_64' else call(116, 10, 0, 0)",  # syslog
    ],
)
def test_what_the_filter_refuses_is_forbidden_not_impossible(call):
    outcome = python(
        f"""
        import ctypes, mmap, os, resource, socket
        libc = ctypes.CDLL(None, use_errno=True)

        def call(*numbers):
            if libc.syscall(*numbers) < 0:
                raise OSError(ctypes.get_errno(), "")

        a, b = socket.socketpair()
        mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            {call}
        except (PermissionError, ValueError):  # the latter is resource.setrlimit's word for it
            print("forbidden")
        """
    )
    assert outcome.stdout == b"forbidden\n", outcome.stderr


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_never_jumps_out(machine):
    program = syscalls.filter_program(machine)
    assert program is not None
    lines = [program[k : k + 8] for k in range(0, len(program), 8)]
    for place, line in enumerate(lines):
        code = int.from_bytes(line[:2], "little")
        if code & 7 == 5:  # a jump
            assert place + 1 + max(line[2], line[3]) < len(lines)
    assert lines[-1][:2] == b"\x06\x00"
    assert syscalls.filter_program("vax") is None


def decision(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter says of a call, by running its program here."""
    program = syscalls.filter_program(machine)
    assert program is not None
    kind = syscalls.MACHINES[machine][1] if architecture is None else architecture
    data = struct.pack("<IIQ6Q", number, kind, 0, *arguments, *[0] * (6 - len(arguments)))
    place = value = 0
    while True:
        code, yes, no, k = struct.unpack_from("<HBBI", program, 8 * place)
        if code == syscalls.RETURN:
            return k
        if code == syscalls.LOAD:
            (value,) = struct.unpack_from("<I", data, k)
        elif code == syscalls.AND:
            value &= k
        else:
            fits = {syscalls.EQUAL: value == k, syscalls.AT_LEAST: value >= k, syscalls.ANY_BIT: bool(value & k)}[code]
            place += yes if fits else no
        place += 1


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_decides_by_number_and_argument(machine):
    column = syscalls.MACHINES[machine][0]
    allowed, forbidden, unknown = syscalls.ALLOW, syscalls.ERRNO | 1, syscalls.ERRNO | 38
    clone, socket_, mmap = (numbers[column] for numbers in (syscalls.CLONE, syscalls.SOCKET, syscalls.MMAP))
    setrlimit, prlimit = syscalls.SETRLIMIT[column], syscalls.PRLIMIT[column]
    assert decision(machine, 0, architecture=0x40000003) == unknown  # 32 bits
    assert decision(machine, syscalls.CLONE3[column]) == unknown
    assert decision(machine, clone, 17) == allowed
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decision(machine, clone, flag | 17) == forbidden
    assert [decision(machine, socket_, family) for family in range(46)] == [
        allowed if family == 1 else forbidden for family in range(46)
    ]
    flags = {0x22: allowed, 0x01: allowed, 0x02: allowed, 0x21: forbidden, 0x23: forbidden, 0x40022: forbidden}
    assert {flag: decision(machine, mmap, 0, 0, 0, flag) for flag in flags} == flags
    assert [decision(machine, setrlimit, 4), decision(machine, setrlimit, 7)] == [forbidden, allowed]
    assert [decision(machine, prlimit, 0, 4), decision(machine, prlimit, 4, 7)] == [forbidden, allowed]
    for numbers in syscalls.REFUSED.values():
        assert decision(machine, numbers[column]) == forbidden
    assert decision(machine, 63) == allowed
    if machine == "x86_64":
        assert decision(machine, 0x40000000 + 63) == unknown


def test_variables_of_the_grader_stay_outside(monkeypatch):
    monkeypatch.setenv("SECRET", "the answer")
    outcome = python("import os; print('SECRET' in os.environ, os.environ['HOME'], os.environ['PYTHONHASHSEED'])")
    assert outcome.stdout == b"False /tmp 0\n"


def test_the_input_waits_for_the_greeting():
    outcome = python(
        """
        import os, select, sys, time
        print(select.select([0], [], [], 0.3)[0], flush=True)
        os.write(1, b"ready\\n")
        print(len(sys.stdin.buffer.read()))
        """,
        stdin=bytes(5 * MIB),
        greeting=b"[]\nready\n",
    )
    assert outcome.stdout == b"[]\nready\n5242880\n"
    assert python("print('other')", greeting=b"ready\n", stdin=b"x").stdout == b"other\n"


def test_each_has_a_core_and_is_the_first_to_go():
    """Two at once are on different cores where there are two; both leave no core file, and no program for it starts."""
    import resource  # not there on Windows

    facts = []
    with contextlib.ExitStack() as started:
        for _ in range(2):
            process = started.enter_context(subprocess.Popen(["sleep", "60"]))
            started.callback(process.kill)
            started.enter_context(sandbox.settled(process.pid))
            limit = resource.prlimit(process.pid, resource.RLIMIT_CORE)
            score = Path(f"/proc/{process.pid}/oom_score_adj").read_text()
            facts.append((os.sched_getaffinity(process.pid), limit, score))
    (one, *first), (other, *second) = facts
    most = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    assert first == second == [(most, most), "1000\n"]
    assert len(one) == len(other) == 1
    assert one != other or len(os.sched_getaffinity(0)) == 1
    assert python("import os; print(len(os.sched_getaffinity(0)))").stdout == b"1\n"


def test_standard_input_ends():
    assert python("import sys; print(len(sys.stdin.buffer.read()))", stdin=bytes(5 * MIB)).stdout == b"5242880\n"
    assert python("input()").code == 1
    assert python("print('deaf')", stdin=bytes(5 * MIB)).stdout == b"deaf\n"


def test_where_bubblewrap_is_missing_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="apt-get install bubblewrap"):
        python("print(1)")


def test_where_bubblewrap_fails_it_says_why(monkeypatch, tmp_path):
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"No permissions to create new namespace; version 0\.8 or newer is needed"):
        python("print(1)")


def test_where_the_kernel_is_unknown_only_control_groups_will_do(monkeypatch):
    monkeypatch.setattr(sandbox, "filter_program", lambda: None)
    with pytest.raises(Unavailable, match="control groups"):
        python("print(1)", watch="tree")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"uid": 0}, "uid = 0 is not"),
        ({"uid": True}, "uid = True is not"),
        ({"uid": 65534}, "belongs to nobody"),
        ({"watch": "both"}, "is none of"),
    ],
)
def test_doors_of_run(changed, said):
    with pytest.raises(ValueError, match=said):
        run(["/usr/bin/true"], b"", SMALL, **{"uid": 61_234, **changed})


def test_a_killed_grader_leaves_nothing():
    """SIGKILL to the process that grades ends what runs in its sandbox."""
    uid = fresh_uid()
    program = f"""
        from grading.limits import Limits
        from grading.sandbox import run
        run(["/usr/bin/sleep", "300"], b"", Limits(seconds=300), {uid})
    """
    if not ROOT:
        pytest.skip("told by the uid, which only root gives")
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=REPOSITORY) as grader:
        deadline = time.monotonic() + 60
        while not owned_by(uid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert owned_by(uid)
        grader.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while owned_by(uid) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = owned_by(uid)
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert not left
    if "groups" in WATCHES:  # the next run removes what that one could not
        python("print(1)", watch="groups")
        assert not groups_of(grader.pid)


def groups_of(pid: int) -> list[Path]:
    folders = set(groups.parents(Path("/proc/self"), Path("/")).values())
    return [group for folder in folders for group in folder.glob(f"{groups.PREFIX}{pid}-*")]


@pytest.mark.skipif("groups" not in WATCHES, reason="no control group is writable here")
@pytest.mark.parametrize("code", ["print(1)", "import os\nwhile True: os.fork()"])
def test_no_group_is_left(code):
    python(code, watch="groups")
    assert not groups_of(os.getpid())


def python_for_all() -> Path:
    """A Python that every user may start: the one that runs the tests may lie in root's own folder."""
    for path in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        folders = [path, *path.parents, REPOSITORY, *REPOSITORY.parents]
        if path.exists() and all(folder.stat().st_mode & 0o005 for folder in folders):
            return path
    pytest.skip("no Python here that an ordinary user could start")


@pytest.mark.skipif(not ROOT, reason="as an ordinary user every other test here is this one")
def test_an_ordinary_user_can_grade_too():
    """A user namespace instead of a real uid: the same limits and walls, held by counting."""
    program = f"""
        import sys
        sys.path.insert(0, {str(REPOSITORY)!r})
        from grading.limits import Limits
        from grading.sandbox import run
        limits = Limits(seconds=60, memory=2**28, processes=20, output=2**20, files=100, file_size=2**23)
        for code in {USER!r}:
            told = run([sys.executable, "-I", "-S", "-c", code], b"", limits, {fresh_uid()})
            print([told.status, told.code, told.stdout.decode()[:100]])
    """
    user = fresh_uid()
    change = ["/usr/bin/setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--no-new-privs"]
    command = [*change, str(python_for_all()), "-I", "-S", "-B", "-c", textwrap.dedent(program)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd="/")
    assert said.returncode == 0, said.stderr
    assert [ast.literal_eval(line) for line in said.stdout.splitlines()] == [
        ["ended", 0, "True False\n"],
        ["ended", 1, ""],
        ["too many processes", None, ""],
        ["out of memory", None, ""],
        ["too many files", None, ""],
        ["too much output", None, "x" * 100],
        ["ended", 1, ""],
        ["ended", 1, ""],
    ]
    assert not owned_by(user)


USER = [
    "import os; print(os.getuid() > 1000, os.path.exists('/etc/passwd'))",
    "import socket; socket.create_connection(('192.0.2.1', 80))",
    "import os, time\ntry:\n while os.fork(): pass\nexcept OSError: pass\ntime.sleep(600)",
    "import os, time\nfor _ in range(6): os.fork() or (bytearray(60 * 2**20), time.sleep(600))\ntime.sleep(600)",
    "import itertools\nfor k in itertools.count(): open(f'/tmp/{k}', 'w')",
    "import os\nwhile True: os.write(1, b'x')",
    "open('/x', 'w')",
    "open('/dev/shm/x', 'w')",
]
