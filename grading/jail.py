"""The command line of bubblewrap: what is mounted, which names are unshared, who the command is, what it may use."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from grading.limits import Limits

__all__ = ["jail"]

SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/alternatives")
MERGED = ("/bin", "/lib", "/lib64")
DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
VARIABLES = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "USER": "student",
    "LOGNAME": "student",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/grading",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # each reserves addresses, which the limit on memory counts
}


def jail(control: list[str], readable: Mapping[str, Path], limits: Limits, uid: int, addresses: int = 0) -> list[str]:
    """bwrap ... setpriv ... prlimit ... --: the command follows. `control` are further options of bwrap's own."""
    root = os.geteuid() == 0
    return [
        *("bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
        *("--unshare-uts", "--hostname", "sandbox", "--unshare-cgroup-try"),
        *([] if root else ["--unshare-user", "--disable-userns", "--uid", str(uid), "--gid", str(uid)]),
        *control,
        *("--perms", "1777", "--size", str(limits.file_size), "--tmpfs", "/tmp"),
        *("--perms", "0777", "--dir", VARIABLES["MPLCONFIGDIR"]),  # the grader may put its list of fonts there
        *("--perms", "0755", "--tmpfs", "/dev", "--proc", "/proc"),
        *mounts({**python_folders(), **readable}),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--clearenv"),
        *(word for name, value in VARIABLES.items() for word in ("--setenv", name, value)),
        "--",
        *(setpriv(uid) if root else []),
        *prlimit(limits, addresses),
    ]


def python_folders() -> dict[str, Path]:
    """The programs and libraries of this Python and of the system; nothing that lies beside them."""
    found = {name: Path(name) for name in SYSTEM}
    base, own = map(os.path.abspath, (sys.base_prefix, sys.prefix))
    for prefix in dict.fromkeys((base, os.path.realpath(base), own)):
        for part in ("bin", "lib", "lib64", "pyvenv.cfg"):
            found[f"{prefix}/{part}"] = Path(prefix) / part
    return {name: path for name, path in found.items() if path.exists()}


def mounts(places: Mapping[str, Path]) -> list[str]:
    words: list[str] = []
    made = {"/", "/tmp", "/dev", "/proc", VARIABLES["MPLCONFIGDIR"]}

    def parents(place: str) -> None:
        for folder in reversed(PurePosixPath(place).parents):
            if str(folder) not in made:  # bubblewrap itself would make them for root's eyes only
                made.add(str(folder))
                words.extend(["--perms", "0755", "--dir", str(folder)])

    for place, path in places.items():
        parents(place)
        made.add(place)
        words += ["--ro-bind", str(path), place]
    for device in DEVICES:
        words += ["--dev-bind", device, device]
    for name in MERGED:
        if Path(name).is_symlink():
            words += ["--symlink", os.readlink(name), name]
        elif Path(name).is_dir():
            words += ["--ro-bind", name, name]
    return [*words, "--symlink", "/proc/self/fd", "/dev/fd"]


def setpriv(uid: int) -> list[str]:
    """A real uid without rights, whatever program it starts."""
    return [
        *("/usr/bin/setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"),
    ]


def prlimit(limits: Limits, addresses: int = 0) -> list[str]:
    """The kernel's limits of each process, and of the uid's number of processes; never above the grader's own.

    The latter is one more than the watch lets live, so that it is the watch that ends a bomb, and says so; for an
    ordinary user the namespace's first process is that one. `addresses` are what libraries reserve and do not use.
    """
    import resource  # not there on Windows, where nothing is graded

    values = {
        "nproc": limits.processes + 1,
        "as": limits.memory + addresses,
        "fsize": limits.file_size,
        "cpu": math.ceil(limits.seconds) + 1,
        "nofile": 256,
        "memlock": 65536,
        "msgqueue": 0,
        "stack": 8 * 2**20,
        "sigpending": 1024,
        "rtprio": 0,
        "nice": 0,
    }
    words = []
    for name, value in values.items():
        most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        words.append(f"--{name}={value if most == resource.RLIM_INFINITY else min(value, most)}")
    return ["/usr/bin/prlimit", *words, "--"]
