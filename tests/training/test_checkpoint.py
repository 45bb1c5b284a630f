"""Checkpoints: bit-identical resume, nothing altered is read, the disk's refusals, two runs, kills in mid-save."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false

import errno
import importlib.util
import io
import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from lecturecode import __version__, seeded
from lecturecode.nn import mlp
from lecturecode.training import Batches, Best, Checkpoint, Ema, Step, adam, fit, storage

SCRIPT = Path(__file__).with_name("run_to_kill.py")
_spec = importlib.util.spec_from_file_location("run_to_kill", SCRIPT)
run_to_kill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run_to_kill)


def small() -> dict:
    rng = seeded(1)
    model = mlp([3, 4, 1], rng)
    data = torch.randn(20, 3, generator=rng)
    return {"model": model, "optimizer": adam(model, 0.1), "rng": rng, "batches": Batches(data, 6, rng, steps=9)}


def some_steps(made: dict, count: int, start: int = 0) -> list[float]:
    def loss(x):
        return (made["model"](x) - torch.rand(1, generator=made["rng"])).square().mean()

    steps = fit(loss, made["batches"], made["optimizer"], start=start)
    return [next(steps).value for _ in range(count)]


@pytest.fixture
def saved(tmp_path) -> Path:
    made = small()
    some_steps(made, 4)
    Checkpoint(**made).save(tmp_path / "run.safetensors", 4, note="first")
    return tmp_path / "run.safetensors"


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, stop):
    """At each step of three epochs, in the middle of one and between two; and the losses too."""
    whole = small()
    losses = some_steps(whole, 9)
    first, second = small(), small()
    some_steps(first, stop)
    Checkpoint(**first).save(tmp_path / "a", stop)
    some_steps(second, 2)  # a state of its own, which loading replaces
    facts = Checkpoint(**second).load(tmp_path / "a")
    assert some_steps(second, 9 - stop, start=facts["step"]) == losses[stop:]
    for mine, theirs in zip(second["model"].parameters(), whole["model"].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(second["rng"].get_state(), whole["rng"].get_state())


def test_step_numbers_go_on(saved):
    made = small()
    facts = Checkpoint(**made).load(saved)
    steps = fit(lambda x: made["model"](x).square().mean(), made["batches"], made["optimizer"], start=facts["step"])
    assert [step.number for step in steps] == [5, 6, 7, 8, 9]


def test_the_parameters_stay_views_of_the_optimizers_vector(saved):
    made = small()
    (flat,) = made["optimizer"].param_groups[0]["params"]
    addresses = [p.data_ptr() for p in made["model"].parameters()]
    Checkpoint(**made).load(saved)
    assert made["optimizer"].param_groups[0]["params"][0] is flat
    assert [p.data_ptr() for p in made["model"].parameters()] == addresses
    assert torch.equal(flat.detach(), torch.cat([p.detach().flatten() for p in made["model"].parameters()]))
    before = flat.detach().clone()
    some_steps(made, 1)
    assert not torch.equal(flat.detach(), before)
    assert torch.equal(flat.detach(), torch.cat([p.detach().flatten() for p in made["model"].parameters()]))


def test_ema_and_best_are_kept_too(tmp_path):
    def made():
        model = mlp([2, 3, 1], seeded(4))
        return model, Ema(model, 0.5), Best(model, patience=3)

    model, ema, best = made()
    for k in range(4):
        model[0].weight.data.add_(k)
        ema.update()
        best.update(-float(k))
    Checkpoint(ema=ema, best=best).save(tmp_path / "a", 4)
    _, ema_again, best_again = made()
    Checkpoint(ema=ema_again, best=best_again).load(tmp_path / "a")
    assert all(torch.equal(a, b) for a, b in zip(ema.average, ema_again.average, strict=True))
    assert (ema_again.steps, best_again.score, best_again.waited, best_again.stop) == (4, 0.0, 3, True)
    assert all(torch.equal(best.kept[name], best_again.kept[name]) for name in best.kept)


def test_facts_and_provenance_come_back(saved):
    facts = Checkpoint().load(saved)
    versions = {"lecturecode": __version__, "torch": str(torch.__version__), "python": sys.version.split()[0]}
    assert facts == {"step": 4, "note": "first", "seed": 1, **versions}


def test_the_weights_alone(saved):
    whole, alone = small(), mlp([3, 4, 1], seeded(9))
    Checkpoint(**whole).load(saved)
    Checkpoint(model=alone).load(saved)
    assert torch.equal(alone[0].weight, whole["model"][0].weight)


def test_other_programs_read_the_file(saved):
    tensors = safetensors.torch.load_file(saved)
    assert torch.equal(tensors["parts.model.0.weight"], _loaded(saved)["model"][0].weight)
    assert tensors["sha256"].numpy().tobytes() == saved.read_bytes()[-32:]


def _loaded(path: Path) -> dict:
    made = small()
    Checkpoint(**made).load(path)
    return made


# --- what is refused -------------------------------------------------------------------------------------------------


def test_each_of_a_thousand_bit_flips_is_refused(saved, tmp_path):
    """Every bit of the length and the checksum, and random ones of header and content, in equal parts."""
    raw = saved.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    rng = random.Random(1)
    bits = [*range(64), *range(8 * (len(raw) - 32), 8 * len(raw))]
    bits += [rng.randrange(64, 8 * header) for _ in range(340)]
    bits += [rng.randrange(8 * header, 8 * (len(raw) - 32)) for _ in range(340)]
    assert len(bits) == 1000
    altered, made = tmp_path / "altered", small()
    before = made["model"][0].weight.clone()
    for bit in bits:
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        altered.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"altered is refused: .*(checksum is wrong|cut short)"):
            Checkpoint(**made).load(altered)
    assert torch.equal(made["model"][0].weight, before)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 31, 32, 33, 500, -33, -32, -1])
def test_a_truncated_file_is_refused(saved, kept):
    raw = saved.read_bytes()
    saved.write_bytes(raw[:kept])
    with pytest.raises(ValueError, match=r"run\.safetensors is refused: .*cut short"):
        Checkpoint(**small()).load(saved)


def test_added_bytes_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"run\.safetensors is refused: its checksum is wrong: it was altered"):
        Checkpoint(**small()).load(saved)


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(Path(tempfile.gettempdir()) / "a-pickle-was-executed"),)


def test_pickle_is_never_loaded(tmp_path):
    file = io.BytesIO()
    torch.save({"trap": Trap()}, file)
    for raw in (pickle.dumps(Trap()), file.getvalue()):
        (tmp_path / "run.pt").write_bytes(raw)
        with pytest.raises(ValueError, match=r"run\.pt is refused: .*no checkpoint"):
            Checkpoint(**small()).load(tmp_path / "run.pt")
    assert not (Path(tempfile.gettempdir()) / "a-pickle-was-executed").exists()


def test_another_safetensors_file_is_refused(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "other")
    with pytest.raises(ValueError, match="other is refused"):
        Checkpoint().load(tmp_path / "other")


def test_a_file_of_another_format_with_a_right_checksum_is_refused(saved):
    raw = saved.read_bytes()[:-32].replace(b"lecturecode checkpoint 1", b"lecturecode checkpoint 9")
    import hashlib

    saved.write_bytes(raw + hashlib.sha256(raw).digest())
    with pytest.raises(ValueError, match=r"calls itself 'lecturecode checkpoint 9', not 'lecturecode checkpoint 1'"):
        Checkpoint().load(saved)


def test_parts_that_do_not_fit_change_nothing(saved):
    wider = mlp([3, 5, 1], seeded(2))
    double = mlp([3, 4, 1], seeded(2), dtype=torch.float64)
    deeper = mlp([3, 4, 4, 1], seeded(2))
    for model in (wider, double, deeper):
        rng, before = seeded(77), {n: t.clone() for n, t in model.state_dict().items()}
        state = rng.get_state()
        with pytest.raises(ValueError, match=r"model does not fit what .*run\.safetensors holds: .*make it as"):
            Checkpoint(rng=rng, model=model).load(saved)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(rng.get_state(), state)
    with pytest.raises(ValueError, match="optimizer does not fit"):
        Checkpoint(optimizer=adam(wider)).load(saved)
    with pytest.raises(ValueError, match=r"batches does not fit.*'size': 6"):
        Checkpoint(batches=Batches(torch.zeros(20, 3), 5, seeded(1), steps=9)).load(saved)
    with pytest.raises(ValueError, match=r"holds model, optimizer, rng, batches, and no ema; leave ema out"):
        Checkpoint(ema=Ema(wider)).load(saved)


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="loss is a function, which has no load_state_dict; leave it out"):
        Checkpoint(loss=some_steps)
    checkpoint = Checkpoint(model=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"facts\.when is a object, and only tensors, numbers and strings"):
        checkpoint.save(tmp_path / "a", 1, when=object())
    with pytest.raises(ValueError, match="torch is among the facts that are kept anyway"):
        checkpoint.save(tmp_path / "a", 1, torch="2")
    with pytest.raises(FloatingPointError, match="at step 2"):
        checkpoint.save(tmp_path / "a", Step(3, torch.tensor(1.0), torch.tensor(2)))
    assert list(tmp_path.iterdir()) == []


# --- the disk --------------------------------------------------------------------------------------------------------

SAVES = """
import os, resource, signal, sys
import torch
from torch import nn
from lecturecode.training import Checkpoint
path, how = sys.argv[1:]
model = nn.Linear(300, 300)
checkpoint = Checkpoint(model=model)
checkpoint.load(path)
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
elif os.geteuid() == 0:
    os.setuid(65534)
try:
    checkpoint.save(path, 2)
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits and users as on POSIX")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_refuses_keeps_the_last_save(how):
    """Full: the system lets a file grow to 100,000 bytes only. Read-only: a folder of someone else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        Checkpoint(model=nn.Linear(300, 300)).save(path, 1)
        raw = path.read_bytes()
        assert len(raw) > 300_000
        os.chmod(folder, 0o755 if how == "full" or os.geteuid() == 0 else 0o555)
        said = subprocess.run([sys.executable, "-c", SAVES, path, how], capture_output=True, text=True, timeout=120)
        os.chmod(folder, 0o755)
        wanted = {"full": "OSError", "read-only": "PermissionError"}[how]
        assert said.stdout.startswith(wanted), said.stderr
        assert f"{path} was not saved" in said.stdout
        assert "the last save there, if any, is untouched" in said.stdout
        assert path.read_bytes() == raw
        assert [p.name for p in Path(folder).iterdir()] == ["run"]
        assert Checkpoint().load(path)["step"] == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_at_each_call_keeps_the_last_save(saved, monkeypatch, call):
    raw, made = saved.read_bytes(), _loaded(saved)
    checkpoint = Checkpoint(**made)
    checkpoint.load(saved)

    def fails(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match=r"was not saved \(No space left on device\).*make room") as info:
        checkpoint.save(saved, 5)
    assert info.value.errno == errno.ENOSPC
    assert saved.read_bytes() == raw
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no/run was not saved"):
        Checkpoint(model=nn.Linear(1, 1)).save(tmp_path / "no" / "run", 1)


# --- two runs --------------------------------------------------------------------------------------------------------


def test_a_second_run_under_the_same_name_is_refused(saved):
    raw = saved.read_bytes()
    second = Checkpoint(**small())
    with pytest.raises(ValueError, match=r"run\.safetensors was saved by another run; load it to go on from it"):
        second.save(saved, 1)
    assert saved.read_bytes() == raw
    second.load(saved)
    second.save(saved, 5)
    second.save(saved, 6)
    assert Checkpoint().load(saved)["step"] == 6


def test_two_runs_that_save_at_once_leave_a_whole_file_and_one_notices(tmp_path, monkeypatch):
    """Both find the name free; one renames first; the other sees it just before its own renaming, and stops."""
    one, two = (Checkpoint(model=nn.Linear(2, 2)) for _ in range(2))
    pack = storage.pack

    def meanwhile(content):
        monkeypatch.setattr("lecturecode.training.checkpoint.pack", pack)
        two.save(tmp_path / "a", 20)
        return pack(content)

    monkeypatch.setattr("lecturecode.training.checkpoint.pack", meanwhile)
    with pytest.raises(ValueError, match="saved by another run"):
        one.save(tmp_path / "a", 10)
    assert Checkpoint().load(tmp_path / "a")["step"] == 20
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_drafts_of_the_dead_are_removed_and_those_of_the_living_are_not(saved):
    import fcntl

    dead, living = (saved.with_name(f".{saved.name}.{name}.draft") for name in ("dead", "living"))
    dead.write_bytes(b"half")
    living.write_bytes(b"half")
    made = small()
    checkpoint = Checkpoint(**made)
    checkpoint.load(saved)
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        checkpoint.save(saved, 5)
    assert not dead.exists()
    assert living.exists()


# --- kills -----------------------------------------------------------------------------------------------------------


POINTS = run_to_kill.POINTS
posix = pytest.mark.skipif(os.name != "posix", reason="signals and locks as on POSIX")


def _start(path: Path) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, SCRIPT, path], **pipes)


def _kill_in_saves(path: Path, plan: list[str], seed: int) -> Counter[str]:
    """Starts the run, ends it by SIGKILL inside a save, and again; how many ended after which of POINTS.

    `plan` names a point for each: the run waits there. "free" lets it run from the first point on, and the signal comes
    at a random moment; it waits only at the last point, so that this moment too lies inside the save.
    """
    rng, counts, stands = random.Random(seed), Counter(), 0
    following = _start(path)
    for number, at in enumerate(plan, 1):
        run, following = following, _start(path) if number < len(plan) else None  # imports while this one runs
        drafts, save = set(path.parent.glob(".*.draft")), rng.randint(1, 3)
        order = {"save": save, "at": POINTS[-1] if at == "free" else at, "share": rng.random()}
        run.stdin.write(json.dumps(order) + "\n")
        run.stdin.flush()
        said = [run.stdout.readline().strip()]
        while said[-1] != at and at != "free":
            said.append(run.stdout.readline().strip())
            assert said[-1] in POINTS, "the run did not come to its save"
        if at == "free":
            time.sleep(rng.uniform(0, 0.004))
        run.kill()
        said += run.stdout.read().split()
        assert run.wait() == -signal.SIGKILL
        run.stdin.close()
        run.stdout.close()

        assert said == list(POINTS[: len(said)]), "it had left the save"
        assert at in ("free", said[-1])
        counts[said[-1]] += 1
        stands += save - 1
        facts = Checkpoint().load(path) if path.exists() else {"step": 0}
        if said[-1] != "renaming" or at != "free":
            assert facts["step"] == stands + ("renamed" in said)
        stands = facts["step"]
        if stands:
            _same_as_uninterrupted(path)
        left = [draft for draft in path.parent.glob(".*.draft") if draft not in drafts]
        if at != "free":
            assert len(left) == (said[-1] in POINTS[2:7])
        if at == "writing":
            assert path.exists() <= (0 < left[0].stat().st_size < path.stat().st_size)
    return counts


REFERENCE: dict[int, torch.Tensor] = {}


def _same_as_uninterrupted(path: Path) -> None:
    """The save loads, and its weights are those of a run without any kill at that step, bit for bit."""
    made = run_to_kill.parts(1_000_000)
    step = Checkpoint(**made).load(path)["step"]
    _extend(step)
    assert torch.equal(run_to_kill.weights(made), REFERENCE[step])
    for later in itertools.islice(run_to_kill.trained(made, step), 2):  # and so is what is made of it
        _extend(later.number)
        assert torch.equal(run_to_kill.weights(made), REFERENCE[later.number])


def _extend(until: int) -> None:
    """One run without a kill, taken as far as it is needed."""
    if not hasattr(_extend, "steps"):
        _extend.made = run_to_kill.parts(1_000_000)
        _extend.steps = run_to_kill.trained(_extend.made)
    while len(REFERENCE) < until:
        number = next(_extend.steps).number
        REFERENCE[number] = run_to_kill.weights(_extend.made)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@posix
def test_killed_at_each_point_of_a_save(tmp_path, one_thread):
    """One kill at each point, the last points first, so that there is a save to lose."""
    assert _kill_in_saves(tmp_path / "run", [*POINTS[::-1]], seed=1) == dict.fromkeys(POINTS, 1)


@posix
@pytest.mark.verify
def test_killed_a_hundred_times_inside_a_save(tmp_path, one_thread):
    """100 of 100: eight at each of the nine points, in random order, and 28 at random moments between them."""
    plan = [*POINTS * 8, *["free"] * 28]
    random.Random(3).shuffle(plan)
    counts = _kill_in_saves(tmp_path / "run", plan, seed=2)
    print("kills after each point:", dict(counts))
    assert counts.total() == len(plan) == 100
    assert min(counts[point] for point in POINTS) >= 8


def test_the_file_says_what_it_is(saved):
    raw = saved.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"]["format"] == "lecturecode checkpoint 1"
    assert header["sha256"]["data_offsets"][1] == len(raw) - 8 - int.from_bytes(raw[:8], "little")
