"""A sandbox before its command runs: what is measured then must not be the machine's own."""

from __future__ import annotations

from inside import SMALL, fresh_uid, sandboxed

from grading.held import Held
from grading.jail import jail
from grading.syscalls import filter_program

pytestmark = sandboxed


def test_the_machine_s_temporary_folder_is_never_counted(tmp_path):
    """Bubblewrap tells its first process before it has mounted anything: /tmp there is for a moment the machine's."""
    for number in range(SMALL.files + 10):
        (tmp_path / str(number)).write_bytes(b"x" * 4096)
    for _ in range(10):
        uid = fresh_uid()

        def arguments(control: list[str], uid: int = uid) -> list[str]:
            return [*jail(control, {}, SMALL, uid), "/usr/bin/true"]

        with Held(arguments, filter_program()) as held:
            for _ in range(20):
                used, files = held.inside()
                assert used <= 65536
                assert files <= 16
