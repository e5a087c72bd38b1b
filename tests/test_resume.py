"""Runs that are killed, interrupted or out of space, and resumed: bit for bit the unbroken run.

A kill is SIGKILL to a child process: from outside after a random time, or by the child itself at a
chosen event (a step, half a file written, a file about to be renamed or removed). Where a child
would be too slow, an exception that nothing catches ends a run in this process at the same events.
"""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

import robust_eqa
from robust_eqa import main

TESTS = Path(__file__).parent
BERT = TESTS / "fixtures" / "bert"  # with dropout, so that the random state matters
STEPS, EVERY = 80, 20
NAMES = ["Ada Lee", "Ben Hale", "Cora Lowe"]


# ---- runs and kills --------------------------------------------------------------------------


class Stop(BaseException):
    """Ends a run in this process as a kill would: nothing catches it, nothing is tidied up."""


def stop():
    raise Stop


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def at_event(kind, number, act, patch):
    """Call `act` at the number-th event whose name holds `kind` (number 0: never).

    Events: before a step, a rename or a removal, after a rename, and with half a file written.
    `patch` is setattr or a monkeypatch's. -> the list of the events so far.
    """
    events = []

    def event(name, before=lambda: None):
        events.extend([name] * (kind in name))
        if kind in name and len(events) == number:
            before()
            act()

    def halve(file):
        os.ftruncate(file, os.fstat(file).st_size // 2)

    fsync, replace, unlink, step = os.fsync, os.replace, os.unlink, robust_eqa.adamw_step

    def new_fsync(file):
        event("half written", lambda: halve(file))
        fsync(file)

    def new_replace(old, new, **how):
        event(f"before {Path(new).name} is renamed")
        replace(old, new, **how)
        event(f"after {Path(new).name} was renamed")

    def new_unlink(path, **how):
        event(f"before {Path(path).name} is removed")
        unlink(path, **how)

    def new_step(*rest):
        event("step")
        return step(*rest)

    patch(os, "fsync", new_fsync)
    patch(os, "replace", new_replace)
    patch(os, "unlink", new_unlink)
    patch(robust_eqa, "adamw_step", new_step)
    return events


def limit_files(size):
    """From now on no file can grow beyond `size`: a write fails halfway, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


CHILD = """
import sys
sys.path[:0] = sys.argv[1].split(":")
import test_resume
test_resume.run_child(*sys.argv[2:])
"""


def run_child(kind, number, act, *arguments):
    """In the child: the command, with one of the ends above at an event."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    name, *numbers = act.split(":")
    at_event(kind, int(number), lambda: globals()[name](*map(int, numbers)), setattr)
    main(list(arguments))


def child(kind, number, act, *arguments):
    """A command as a child process that comes to its end at an event."""
    path = f"{TESTS}:{TESTS.parent}"
    command = [sys.executable, "-c", CHILD, path, kind, str(number), act, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


def finish(process, status):
    """-> what a child wrote to stderr; it must end with this status."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, f"exit status {process.returncode}: {out}{err}"
    return err


def arguments(folder, out, steps=STEPS, every=EVERY):
    """`train` on squad.json for a number of steps."""
    epochs = steps / 12  # 48 questions, a window each, 4 in a batch
    found = ["train", "--train", folder / "squad.json", "--eval", folder / "squad.json"]
    found += ["--init", BERT, "--lr", 1e-3, "--batch-size", 4, "--epochs", epochs, "--warmup", 5]
    found += ["--max-length", 64, "--stride", 4, "--eval-every", every, "--out", out]
    return [str(argument) for argument in found]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with squad.json, `long` and `short`: unbroken runs of 80 and of 12 steps."""
    folder, rows = tmp_path_factory.mktemp("resume"), []
    for k in range(48):
        name, tail = NAMES[k % 3], " It was near the lake, and new in 1912."[: 20 * (k % 2 + 1)]
        context, question = f"{name} opened the cafe.{tail}", "Who was it near Cape Dun?"
        golds = [{"text": name, "answer_start": 0}] if k % 4 else []
        rows.append({"id": str(k), "context": context, "question": question, "answers": golds})
    (folder / "squad.json").write_text(json.dumps(rows))
    main(arguments(folder, folder / "short", 12, 4))
    main(arguments(folder, folder / "long"))
    return folder


RESULTS = "model.safetensors", "metrics.json", "metrics.jsonl", "config.json", "tokenizer.json"


def assert_same(run, unbroken):
    """The same files with the same bytes, but for settings.json, which holds the run's place."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (run, unbroken)]
    assert names[0] == names[1], f"leftovers or missing files: {set(names[0]) ^ set(names[1])}"
    for name in RESULTS:
        ours, theirs = ((folder / name).read_bytes() for folder in (run, unbroken))
        assert ours == theirs, f"{name} differs between a resumed and an unbroken run"


def resume(capsys, command):
    """Go on in this process; what is printed is of no interest here."""
    main([*command, "--resume"])
    capsys.readouterr()


def refused(capsys, command):
    """The last line on stderr of a command that must end with exit status 2."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in command])
    err = capsys.readouterr().err
    assert caught.value.code == 2 and "Traceback" not in err, err
    assert re.search(r"(^|\n)error: \S[^\n]{10,600}\n\Z", err), f"not one sentence: {err}"
    return err.splitlines()[-1]


def stopped(command, number, monkeypatch, kind=""):
    """Stop a run in this process at an event -> the event's name, or None if it ended before."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 2**22 + number)  # it is another process that resumes
        events = at_event(kind, number, stop, patched.setattr)
        try:
            main(command)
        except Stop:
            return events[-1]
    return None


# ---- SIGKILL ---------------------------------------------------------------------------------

KILLS = [
    pytest.param(3, id="3 kills"),
    pytest.param(20, id="20 kills", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kills", KILLS)
def test_killed_at_random_and_resumed(kills, work, tmp_path, capsys):
    """SIGKILL after a random time, at a step, with half a file written, before or after a rename."""
    seed = random.randrange(10**6)  # another one each time; the message names it
    rng, plans, killed = random.Random(seed), [], 0
    for k in range(kills):
        kind, last = [("step", 0), ("step", STEPS), ("written", 9), ("renamed", 18)][k % 4]
        number = rng.randrange(2, last) if last else 0  # settings.json is the first file, not hit
        plans.append((tmp_path / str(k), kind, number, rng.uniform(0, 2)))
    for pair in (plans[k : k + 2] for k in range(0, kills, 2)):  # two at once
        running = [child(*event, "kill", *arguments(work, out)) for out, *event, _ in pair]
        for process, (out, _, number, wait) in zip(running, pair):
            if number == 0:
                while not (out / "settings.json").exists() and process.poll() is None:
                    time.sleep(0.01)
                time.sleep(wait)
                process.kill()
            process.communicate(timeout=120)
            killed += process.returncode == -signal.SIGKILL
    assert killed >= 2 * kills / 3, f"only {killed} of {kills} were killed (seed {seed})"
    for out, kind, number, wait in plans:
        resume(capsys, arguments(work, out))
        try:
            assert_same(out, work / "long")
        except AssertionError as error:
            moment = f"event {kind} {number}" if number else f"{wait:.2f} s"
            pytest.fail(f"seed {seed}, killed at {moment}: {error}")


EVENTS = [
    pytest.param(7, id="every 7th event"),
    pytest.param(1, id="every event", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("every", EVENTS)
def test_stopped_at_every_event_and_resumed(every, work, tmp_path, capsys, monkeypatch):
    """Whatever is half done when a run ends, the resumed one ends like the unbroken run."""
    failed, tried = {}, 0
    for number in range(1, 10**6, every):
        out = tmp_path / str(number)
        command = arguments(work, out, 12, 4)
        event = stopped(command, number, monkeypatch)
        if event is None:
            break
        again = ["--resume"] * (out / "settings.json").exists()
        tried += 1
        try:
            main([*command, *again])
            assert_same(out, work / "short")
        except (AssertionError, SystemExit, OSError) as error:
            failed[number] = f"{event}: {error}"
        capsys.readouterr()
        shutil.rmtree(out, ignore_errors=True)
    assert tried > 40 / every, f"only {tried} events"
    assert not failed, f"{len(failed)} of {tried} events:\n" + "\n".join(
        f"{number} {what}" for number, what in failed.items()
    )


def test_killed_twice(work, tmp_path, capsys, monkeypatch):
    """A resumed run can be stopped and resumed again."""
    command = arguments(work, tmp_path / "run", 12, 4)
    assert stopped(command, 6, monkeypatch, "step") == "step"  # the last state is of step 4
    assert stopped([*command, "--resume"], 6, monkeypatch, "step") == "step"  # of step 8
    resume(capsys, command)
    assert_same(tmp_path / "run", work / "short")


# ---- Ctrl-C ----------------------------------------------------------------------------------


def assert_interrupted(err, out):
    """One sentence that says how to go on; the state is whole. -> its step"""
    *_, last = err.strip().splitlines()
    assert "Traceback" not in err, err
    assert last == "interrupted; --resume goes on from what is saved", (
        f"does not say how to go on: {last}"
    )
    with safe_open(out / "state.safetensors", "pt") as state:
        step = int(state.metadata()["step"])
    assert not list(out.glob(".*")), "a temporary file is left"
    return step


def test_interrupted_child(work, tmp_path, capsys):
    """SIGINT at a random step: exit status 130, a checkpoint of this step, the same end."""
    number = random.randrange(2, STEPS - 2)
    command = arguments(work, tmp_path / "run")
    err = finish(child("step", number, "interrupt", *command), 130)
    step = assert_interrupted(err, tmp_path / "run")
    assert number - 1 <= step <= number, f"in step {number}, but the state is of step {step}"
    resume(capsys, command)
    assert_same(tmp_path / "run", work / "long")


@pytest.mark.parametrize(
    "when", ["in a step", "twice", "in an evaluation", "in the last evaluation"]
)
def test_interrupted_at_an_awkward_moment(when, work, tmp_path, capsys, monkeypatch):
    """Not half a step, no evaluation lost or written twice, and the old handler put back."""
    command = arguments(work, tmp_path / "run", 12, 4)
    before, predict, calls = signal.getsignal(signal.SIGINT), robust_eqa.predict, []

    def interrupted(*rest):
        calls.append(rest)
        if len(calls) == (3 if when == "in the last evaluation" else 2):
            interrupt()
        return predict(*rest)

    with monkeypatch.context() as patched:
        if when in ("in a step", "twice"):
            presses = [interrupt] * (1 + (when == "twice"))  # the second does not wait for the step
            at_event("step", 6, lambda: [press() for press in presses], patched.setattr)
        else:
            patched.setattr(robust_eqa, "predict", interrupted)
        try:
            with pytest.raises(SystemExit) as caught:
                main(command)
        except KeyboardInterrupt:
            pytest.fail("KeyboardInterrupt reaches the user")
    assert caught.value.code == 130
    assert signal.getsignal(signal.SIGINT) == before, "the handler was not put back"
    step = assert_interrupted(capsys.readouterr().err, tmp_path / "run")
    assert step == {"in a step": 6, "twice": 4, "in an evaluation": 8}.get(when, 12)
    resume(capsys, command)
    assert_same(tmp_path / "run", work / "short")


# ---- no space, no number ---------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """-> a file system with room for one state and a half, and a function that makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, stderr=subprocess.PIPE).returncode:
        pytest.skip("cannot mount a small file system here")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,size=8m", place], check=True)
    subprocess.run(["umount", place], check=True)


def assert_one_sentence(err, word):
    *_, last = err.strip().splitlines()
    assert last.startswith("error: ") and word in last and "Traceback" not in err, err


def test_a_write_that_fails(work, tmp_path, capsys):
    """One sentence; the state before is whole, and the run goes on from it."""
    out = tmp_path / "run"
    command = arguments(work, out)
    err = finish(child("step", EVERY + 5, "limit_files:100000", *command), 2)
    assert_one_sentence(err, "state.safetensors")
    assert not list(out.glob(".*")), "a temporary file is left"
    with safe_open(out / "state.safetensors", "pt") as state:
        assert int(state.metadata()["step"]) == EVERY
    resume(capsys, command)
    assert_same(out, work / "long")


def test_a_full_disk(work, small_disk, capsys):
    """The same on a file system that has no room for a second state."""
    place, enlarge = small_disk
    command = arguments(work, place / "run", 12, 4)
    assert "No space left" in refused(capsys, command)
    assert (place / "run" / "state.safetensors").exists() and not list(place.glob("run/.*"))
    enlarge()
    resume(capsys, command)
    assert_same(place / "run", work / "short")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(value, work, tmp_path, capsys, monkeypatch):
    """One sentence; the state before is kept, and the run goes on from it."""
    command, real, calls = arguments(work, tmp_path / "run", 12, 4), robust_eqa.robust_loss, []

    def broken(*rest):
        calls.append(rest)
        return real(*rest) * (value if len(calls) == 6 else 1)

    with monkeypatch.context() as patched:
        patched.setattr(robust_eqa, "robust_loss", broken)
        message = refused(capsys, command)
    assert "--lr" in message and "not finite" in message, message
    with safe_open(tmp_path / "run" / "state.safetensors", "pt") as state:
        assert int(state.metadata()["step"]) == 4, "not the last good state"
    assert not (tmp_path / "run" / "model.safetensors").exists()
    resume(capsys, command)
    assert_same(tmp_path / "run", work / "short")


@pytest.mark.parametrize("loss", ["robust", "default"])
def test_a_learning_rate_far_too_high(loss, work, tmp_path, capsys):
    """What a user does to get there."""
    command = [*arguments(work, tmp_path / "run"), "--lr", "1e9", "--warmup", "0", "--loss", loss]
    assert "--lr" in refused(capsys, command)
    assert not (tmp_path / "run" / "model.safetensors").exists()


# ---- what is recorded, and refused -----------------------------------------------------------


def test_threads_are_recorded(work):
    """Each training line of metrics.jsonl says on how many threads its numbers depend."""
    lines = map(json.loads, (work / "short" / "metrics.jsonl").read_text().splitlines())
    threads = [line.get("threads") for line in lines if "loss" in line]
    assert threads and set(threads) == {1}


def test_one_seed_one_result(work, tmp_path, capsys):
    """The same run in another place, and in another process above, gives the same bytes."""
    main(arguments(work, tmp_path / "run", 12, 4))
    assert_same(tmp_path / "run", work / "short")


def test_changed_settings_are_named(work, tmp_path, capsys, monkeypatch):
    """Each of those that were changed and no other; nothing is touched."""
    command = arguments(work, tmp_path / "run", 12, 4)
    stopped(command, 6, monkeypatch, "step")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    changed = ["--lr", "5e-4", "--seed", "1", "--positive-weight", "3", "--loss", "default"]
    message = refused(capsys, [*command, *changed, "--resume"])
    named = set(re.findall(r"--[a-z-]+", message)) - {"--overwrite", "--resume"}
    expected = {"--lr", "--seed", "--positive-weight", "--loss", "--synthetic"}
    assert named == expected, f"--synthetic follows --loss; named: {named}"
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("content", ["model.safetensors", "vocab.txt", "notes", "below/notes"])
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_directory_that_is_not_empty(content, command, work, tmp_path, capsys):
    """Refused even where it holds no run: nothing in it is replaced without --overwrite."""
    file = tmp_path / "run" / content
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    _, *rest = arguments(work, tmp_path / "run", 12, 4)
    assert "--overwrite" in refused(capsys, [command, *rest])
    assert [p for p in (tmp_path / "run").rglob("*") if p.is_file()] == [file]
    assert file.read_text() == "precious"


@pytest.mark.parametrize("old", ["finished", "unfinished"])
def test_an_overwriting_run_that_is_stopped(old, work, tmp_path, capsys, monkeypatch):
    """At no event is anything of the old run beside the new settings, or taken for the new one."""
    start = shutil.copytree(work / "short", tmp_path / "start")
    if old == "unfinished":
        shutil.rmtree(start)
        assert stopped(arguments(work, start, 12, 4), 6, monkeypatch, "step")
    fresh = [*arguments(work, tmp_path / "fresh", 12, 6), "--seed", "1"]
    main(fresh)
    previous = {path.name: path.read_bytes() for path in start.iterdir()}
    failed = {}
    for number in range(1, 14):
        run = shutil.copytree(start, tmp_path / str(number))
        command = [*arguments(work, run, 12, 6), "--seed", "1"]
        event = stopped([*command, "--overwrite"], number, monkeypatch)
        seed = json.loads((run / "settings.json").read_text())["seed"]
        names = {p.name for p in run.iterdir() if p.read_bytes() == previous.get(p.name)}
        stale = names & {"model.safetensors", "state.safetensors", "metrics.json", "metrics.jsonl"}
        if seed == 1 and stale:
            failed[number] = f"{event}: new settings beside the old {sorted(stale)}"
            continue
        try:
            main([*command, "--resume" if seed == 1 else "--overwrite"])
            assert_same(run, tmp_path / "fresh")
        except (AssertionError, SystemExit) as error:
            failed[number] = f"{event}: {error}"
        capsys.readouterr()
    assert not failed, "\n".join(f"{number} {what}" for number, what in failed.items())


def test_the_toy_run_replaces_only_its_own(tmp_path, capsys, monkeypatch, work):
    """Without --out: a finished toy run, but no unfinished one, and no other run in its place."""
    monkeypatch.chdir(tmp_path)
    run, small = Path("runs/toy"), ["--limit", "64", "--epochs", "1"]
    command = ["train", *small, "--eval", str(work / "squad.json")]
    main(command)
    main([*command, "--seed", "1"])
    assert json.loads((run / "settings.json").read_text())["seed"] == 1, "was not replaced"
    shutil.copytree(run, "finished")
    failed = []
    for what in ("another train file", "another init", "unfinished"):
        shutil.rmtree(run)
        shutil.copytree("finished", run)
        settings = json.loads((run / "settings.json").read_text())
        if what == "unfinished":
            (run / "metrics.json").unlink()
            (run / "model.safetensors").unlink()
            (run / "state.safetensors").write_bytes(b"precious")
        else:
            settings |= {what.split()[1]: "precious"}
        (run / "settings.json").write_text(json.dumps(settings))
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        try:
            main(command)
            failed.append(f"{what}: replaced")
        except SystemExit as error:
            err = capsys.readouterr().err
            if error.code != 2 or "--overwrite" not in err:
                failed.append(f"{what}: status {error.code}: {err}")
        if not failed and {path.name: path.read_bytes() for path in run.iterdir()} != before:
            failed.append(f"{what}: changed though refused")
    assert not failed, "\n".join(failed)
    main([*command, "--overwrite"])
    assert (run / "metrics.json").exists()


@pytest.mark.slow
def test_compare_stopped_and_resumed(work, tmp_path, capsys, monkeypatch):
    """Runs that have ended are not trained again, the one that was stopped goes on."""
    _, *rest = arguments(work, tmp_path / "unbroken", 12, 4)
    main(["compare", *rest, "--seeds", "2"])
    _, *rest = arguments(work, tmp_path / "stopped", 12, 4)
    command = ["compare", *rest, "--seeds", "2"]
    assert stopped(command, 18, monkeypatch, "step")  # in the second of four runs
    main([*command, "--resume"])
    results = [(tmp_path / x / "compare.json").read_text() for x in ("unbroken", "stopped")]
    assert results[0] == results[1]
