"""Broken input through the commands: one sentence, exit status 2, nothing written.

The tables of test_data (question files) and test_model (checkpoints) go through a command here too;
below are what they lack: lying headers, impossible sizes, strange tokenizers, damaged run
directories, outputs that cannot be written, links that lead outside. The last table is odd input
that must work.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_data import BROKEN
from test_model import BAD
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import robust_eqa
from robust_eqa import main

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
SHAPE = ["--max-length", 40, "--stride", 4]
CONTEXT = "Ada Lee opened the cafe near the lake \u6e56."  # whose last word no fixture knows
GOLD = {"text": ["the cafe"], "answer_start": [15]}
ROW = {"id": "id-7", "question": "What was opened?", "context": CONTEXT, "answers": GOLD}


def snapshot(folder):
    """{path: (kind, content)} of all that is in a folder; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = "link" if path.is_symlink() else "file" if path.is_file() else "other"
        found[path] = (
            kind,
            os.readlink(path) if kind == "link" else kind == "file" and (path.read_bytes()),
        )
    return found


def assert_one_sentence(err, words):
    """A single line on stderr that names one of the words, and is not a library's long story."""
    assert re.fullmatch(r"error: \S[^\n]{10,1500}\n", err), f"not one sentence:\n{err}"
    assert any(word in err for word in words), f"none of {words} is named: {err}"


def refuse(capsys, folder, words, *arguments):
    """Run a command that must end with one sentence and leave `folder` as it is."""
    before = snapshot(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == "", f"status {caught.value.code}: {out}{err}"
    assert_one_sentence(err, words)
    after = snapshot(folder)
    changed = [path for path in before | after if before.get(path) != after.get(path)]
    assert not changed, f"written, changed or removed: {changed}"


def write_squad(path, rows=(ROW,)):
    path.write_text(json.dumps({"data": list(rows)}))
    return path


# ---- question files --------------------------------------------------------------------------


def rows(**changes):
    """A file of two questions, the first of which can be read."""
    return json.dumps([ROW | {"id": "good"}, ROW | changes])


def offset(value):
    return json.dumps([ROW | {"answers": {"text": ["the cafe"], "answer_start": [value]}}])


FILES = {  # what: (content, one of these is named)
    "two byte order marks": ("\ufeff\ufeff" + json.dumps([ROW]), ["line 1"]),
    "UTF-16 without a mark": (json.dumps([ROW]).encode("utf-16-le"), [""]),
    "UTF-32": (json.dumps([ROW]).encode("utf-32"), [""]),
    "Latin-1 in a context": (rows(context="Café.").encode().replace(b"\\u00e9", b"\xe9"), [""]),
    "NUL bytes": (b"\0" * 100, ["line 1"]),
    "NUL bytes after the end": (json.dumps([ROW]).encode() + b"\0" * 9, ["line 1"]),
    "gzip in gzip": (gzip.compress(gzip.compress(json.dumps([ROW]).encode())), [""]),
    "text after the gzip": (gzip.compress(json.dumps([ROW]).encode()) + b"and more", [""]),
    "UTF-16 in gzip": (gzip.compress(json.dumps([ROW]).encode("utf-16")), [""]),
    "a zip file": (b"PK\x03\x04" + bytes(200), ["line 1"]),
    "a web page": ("<!DOCTYPE html>\n<title>404</title>", ["line 1"]),
    "JavaScript": (f"var data = {json.dumps([ROW])};", ["line 1"]),
    "Python": (repr([ROW]), ["line 1"]),
    "a comma too many": (json.dumps([ROW])[:-1] + ",]", ["line 1"]),
    "nested objects without end": ('{"data":' * 100_000, [""]),
    "nested context": (rows(context=json.loads("[" * 500 + "]" * 500)), ["id-7", "data[1]"]),
    "data is null": ('{"data": null}', [""]),
    "data is a text": ('{"data": "squad"}', ["data[0]"]),
    "rows and numbers": (json.dumps([ROW, 1, 2]), ["data[1]"]),
    "lines of numbers": ("1\n2\n3\n", ["data[0]"]),
    "a null line": (json.dumps(ROW) + "\nnull\n", ["data[1]"]),
    "paragraphs is null": ('{"data": [{"paragraphs": null}]}', ["data[0]"]),
    "qas is null": ('{"data": [{"paragraphs": [{"context": "a", "qas": null}]}]}', ["[0]"]),
    "id is a fraction": (rows(id=1.5), ["id-7", "data[1]"]),
    "id is an object": (rows(id={"a": 1}), ["id-7", "data[1]"]),
    "id is empty": (rows(id=""), ["id-7", "data[1]"]),
    "question is null": (rows(question=None), ["id-7", "data[1]"]),
    "question of NUL and spaces": (rows(question="  \t\u3000"), ["id-7", "data[1]"]),
    "answers is a number": (rows(answers=7), ["id-7", "data[1]"]),
    "an answer in an answer": (rows(answers={"text": [["b"]], "answer_start": [0]}), ["id-7", "[1"]),
    "offset 1e400": (offset(0).replace("[0]", "[1e400]"), ["1e400", "inf"]),
    "offset NaN": (offset(float("nan")), ["nan"]),
    "offset 1e3": (offset(1e3), ["1000.0"]),
    "offset false": (offset(False), ["False"]),
    "offset null": (offset(None), ["None"]),
    "offset in words": (offset("0x0f"), ["0x0f"]),
    "offset of 5,000 digits": (offset("9" * 5000), ["data[0]"]),
    "offset is an object": (offset({"start": 15}), ["start"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN | FILES)
def test_question_file(what, tmp_path, capsys):
    """Named with the file and the place by the command that reads it."""
    content, words = (BROKEN | FILES)[what]
    file = tmp_path / "odd.json"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = "augment", file, "--output", tmp_path / "out.json"
    refuse(capsys, tmp_path, [str(file)], *arguments)
    with pytest.raises(SystemExit):
        main([str(argument) for argument in arguments])
    message = capsys.readouterr().err.replace(str(file), "FILE")
    assert any(word in message for word in words), f"none of {words} is named: {message}"


def test_a_file_name_of_two_lines(tmp_path, capsys):
    """A line break in a name does not make two lines of one sentence."""
    (tmp_path / "two\nlines.json").write_text("{")
    arguments = "augment", tmp_path / "two\nlines.json", "--output", tmp_path / "out"
    refuse(capsys, tmp_path, ["lines.json"], *arguments)


# ---- checkpoints -----------------------------------------------------------------------------


def config(**changes):
    """folder -> its config.json with other values."""

    def change(folder):
        found = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(found))

    return change


def raw(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def header(change, pad=0):
    """folder -> model.safetensors whose header is changed; data and the rest stay as they are."""

    def spoil(folder):
        content = (folder / "model.safetensors").read_bytes()
        size = int.from_bytes(content[:8], "little")
        found = json.loads(content[8 : 8 + size])
        found = change(found) or found
        new = found if isinstance(found, bytes) else json.dumps(found).encode()
        new += b" " * (-len(new) % 8)
        length = (len(new) + pad).to_bytes(8, "little")
        (folder / "model.safetensors").write_bytes(length + new + content[8 + size :])

    return spoil


WEIGHT = "bert.encoder.layer.1.attention.self.query.weight"


def entry(**changes):
    """folder -> one weight's entry in the header changed."""
    return header(lambda found: found[WEIGHT].update(changes))


def moved(by, end=0):
    """folder -> one weight's bytes said to be elsewhere."""

    def change(found):
        start, stop = found[WEIGHT]["data_offsets"]
        found[WEIGHT]["data_offsets"] = [start + by, stop + by + end]

    return header(change)


def weights(change):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors[WEIGHT] = change(tensors[WEIGHT])
        save_file(tensors, folder / "model.safetensors")

    return spoil


def one(value):
    return weights(lambda x: x.flatten().index_fill(0, torch.tensor([77]), value).view(x.shape))


def tokenizer(make):
    """folder -> tokenizer.json made from the one that is there."""

    def spoil(folder):
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(make(found) or found), "utf-8")

    return spoil


def template(ids=(3, 4), types=(0, 1)):
    """tokenizer.json -> with [CLS] and [SEP] of these ids and segments of these numbers."""

    def change(found):
        special = zip(("[CLS]", "[SEP]"), ids)
        found["post_processor"] = json.loads(
            processors.TemplateProcessing(
                single="[CLS]:0 $A:0 [SEP]:0",
                pair="[CLS]:{0} $A:{0} [SEP]:{0} $B:{1} [SEP]:{1}".format(*types),
                special_tokens=list(special),
            ).__getstate__()
        )

    return change


def other_model(model):
    """tokenizer.json -> with another kind of model, a vocabulary of its own, the same template."""

    def change(found):
        new = Tokenizer(model())
        new.pre_tokenizer = pre_tokenizers.Whitespace()
        return json.loads(new.to_str()) | {"post_processor": found["post_processor"]}

    return change


def without_unknown(found):
    """Everything but [UNK]: fails on the first character that has no token."""
    del found["model"]["vocab"]["[UNK]"]
    found["added_tokens"] = [t for t in found["added_tokens"] if t["content"] != "[UNK]"]


WORDS = {"[CLS]": 3, "[SEP]": 4, "a": 5, "b": 6}
PIECES = [("[CLS]", 0.0), ("a", -1.0), ("b", -1.0), ("[SEP]", 0.0)]
CHECKPOINTS = {  # what: (how the BERT fixture is broken, one of these is named)
    "header longer than the file": (header(lambda h: None, pad=10**7), ["model.safetensors"]),
    "header of 2^63 bytes": (
        raw("model.safetensors", (2**63).to_bytes(8, "little") + b"{}"),
        ["model.safetensors"],
    ),
    "header of no bytes": (raw("model.safetensors", bytes(8)), ["model.safetensors"]),
    "seven bytes": (raw("model.safetensors", b"\x40" * 7), ["model.safetensors"]),
    "header is a list": (header(lambda h: b"[1, 2]"), ["model.safetensors"]),
    "header is no text": (header(lambda h: b"\xff" * 64), ["model.safetensors"]),
    "header without end": (header(lambda h: b'{"a":' * 50_000), ["model.safetensors"]),
    "header is empty": (header(lambda h: b"{}"), ["model.safetensors"]),
    "overlapping offsets": (moved(-64), ["model.safetensors"]),
    "offsets beyond the end": (moved(10**9), ["model.safetensors"]),
    "negative offsets": (entry(data_offsets=[-4096, 0]), ["model.safetensors"]),
    "backward offsets": (entry(data_offsets=[4096, 0]), ["model.safetensors"]),
    "offsets too long": (moved(0, end=64), ["model.safetensors"]),
    "shape lies": (entry(shape=[2**40, 2**40]), ["model.safetensors"]),
    "shape of other order": (entry(shape=[16, 64]), ["query.weight", "model.safetensors"]),
    "negative shape": (entry(shape=[-32, -32]), ["model.safetensors"]),
    "unknown dtype": (entry(dtype="F31"), ["model.safetensors"]),
    "dtype of other size": (entry(dtype="F64"), ["model.safetensors"]),
    "whole numbers for weights": (entry(dtype="I32"), ["query.weight"]),
    "infinity in a weight": (one(float("inf")), ["query.weight"]),
    "one NaN": (one(float("nan")), ["query.weight"]),
    "beyond single precision": (weights(lambda x: x.double() * 1e300), ["query.weight"]),
    "a folder for weights": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
        ["model.safetensors"],
    ),
    **{
        f"{name}: {value!r:.30}": (config(**{name: value}), [name, "config.json"])
        for name, value in [
            ("hidden_size", -32),
            ("hidden_size", 0),
            ("hidden_size", 10**18),
            ("hidden_size", 1e400),
            ("hidden_size", 32.0),
            ("hidden_size", True),
            ("hidden_size", [32]),
            ("hidden_size", {"value": 32}),
            ("hidden_size", 9_999_996),
            ("num_hidden_layers", 10**6),
            ("num_hidden_layers", None),
            ("num_attention_heads", 0),
            ("num_attention_heads", -4),
            ("vocab_size", 10**18),
            ("vocab_size", 2),
            ("max_position_embeddings", 0),
            ("intermediate_size", "64"),
            ("type_vocab_size", 0),
            ("type_vocab_size", 1),
            ("hidden_dropout_prob", 1.0),
            ("hidden_dropout_prob", -0.1),
            ("hidden_dropout_prob", float("nan")),
            ("attention_probs_dropout_prob", "0.1"),
            ("layer_norm_eps", float("inf")),
            ("initializer_range", -1),
            ("pad_token_id", -1),
            ("pad_token_id", None),
            ("question_overlap", "yes"),
            ("question_overlap", 1),
            ("model_type", ["bert"]),
            ("hidden_act", None),
        ]
    },
    "overlap without its segment": (config(question_overlap=True), ["config.json", "segment"]),
    "config in UTF-16": (raw("config.json", "{}".encode("utf-16")), ["config.json"]),
    "config nested without end": (raw("config.json", b"[" * 100_000), ["config.json"]),
    "config is null": (raw("config.json", b"null"), ["config.json"]),
    "config is a folder": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
        ["config.json"],
    ),
    "special tokens beyond the vocabulary": (tokenizer(template(ids=(999, 4))), ["999"]),
    "segments beyond the embedding": (tokenizer(template(types=(0, 9))), ["segment 9"]),
    "special tokens that are not there": (tokenizer(template(ids=(3, 10**9))), ["token"]),
    "no unknown token": (tokenizer(without_unknown), ["tokenizer.json"]),
    "an empty vocabulary": (
        tokenizer(lambda found: found["model"].update(vocab={})),
        ["tokenizer.json"],
    ),
    "whole words only": (
        tokenizer(other_model(lambda: models.WordLevel(WORDS, unk_token="[UNK]"))),
        ["tokenizer.json"],
    ),
    "Unigram without unknown": (
        tokenizer(other_model(lambda: models.Unigram(PIECES))),
        ["tokenizer.json"],
    ),
    "merges of tokens that are not there": (
        tokenizer(
            lambda found: found.update(
                model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "x"]]}
            )
        ),
        ["tokenizer.json"],
    ),
    "tokenizer in UTF-16": (raw("tokenizer.json", "{}".encode("utf-16")), ["tokenizer.json"]),
    "tokenizer without end": (raw("tokenizer.json", b'{"model":' * 50_000), ["tokenizer.json"]),
    "tokenizer is a folder": (
        lambda f: ((f / "tokenizer.json").unlink(), (f / "tokenizer.json").mkdir()),
        ["tokenizer.json"],
    ),
    "another family's tokenizer": (
        lambda f: shutil.copy(FIXTURES / "roberta" / "tokenizer.json", f),
        ["tokenizer.json"],
    ),
}  # fmt: skip


def checkpoint(folder, spoil, family="bert"):
    shutil.copytree(FIXTURES / family, folder)
    spoil(folder)
    return folder


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_checkpoint(what, tmp_path, capsys):
    """Refused by the command that scores it, and by the one that starts from it."""
    spoil, words = CHECKPOINTS[what]
    folder, file = checkpoint(tmp_path / "bert", spoil), write_squad(tmp_path / "squad.json")
    refuse(capsys, tmp_path, words, "evaluate", folder, file, *SHAPE)
    arguments = ["--init", folder, "--train", file, "--out", tmp_path / "run", *SHAPE]
    refuse(capsys, tmp_path, words, "train", *arguments)


@pytest.mark.parametrize("what", BAD)
def test_checkpoint_of_test_model(what, tmp_path, capsys):
    """The table there, through `train --init`."""
    family, spoil, word = BAD[what]
    folder = checkpoint(tmp_path / family, spoil, family)
    file = write_squad(tmp_path / "squad.json")
    arguments = ["--init", folder, "--train", file, "--out", tmp_path / "run", *SHAPE]
    refuse(capsys, tmp_path, [word], "train", *arguments)


# ---- links and paths that lead outside -------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["absolute", "relative", "twice"])
def test_links_that_lead_out_of_a_model(name, kind, tmp_path, capsys):
    """A file of a model that is a link to a file elsewhere is not read."""
    folder = checkpoint(tmp_path / "bert", lambda f: (f / name).unlink())
    (tmp_path / "outside").mkdir()
    shutil.copy(FIXTURES / "bert" / name, tmp_path / "outside" / name)
    target = tmp_path / "outside" / name if kind == "absolute" else Path("../outside") / name
    if kind == "twice":
        (folder / "inner").symlink_to("../outside")
        target = Path("inner") / name
    (folder / name).symlink_to(target)
    file = write_squad(tmp_path / "squad.json")
    refuse(capsys, tmp_path, [name, "inner"], "evaluate", folder, file, *SHAPE)


def test_paths_in_a_config_are_not_followed(tmp_path, capsys):
    """Keys that other software takes for file names change nothing, there or not."""
    file = write_squad(tmp_path / "squad.json")
    main(["evaluate", str(FIXTURES / "bert"), str(file), *map(str, SHAPE)])
    expected = capsys.readouterr().out
    paths = {"_name_or_path": "/etc/passwd", "vocab_file": "../squad.json"}
    paths |= {"tokenizer_file": "../../../../etc/passwd", "weights": "/dev/zero"}
    paths |= {"auto_map": {"AutoModel": "../evil--evil.Evil"}, "out": "/", "init": "/dev/zero"}
    folder = checkpoint(tmp_path / "bert", config(**paths))
    for name in ("tokenizer_config.json", "settings.json", "generation_config.json"):
        (folder / name).write_text(json.dumps(paths | {"train": "/dev/zero", "loss": "default"}))
    before = snapshot(tmp_path)
    main(["evaluate", str(folder), str(file), *map(str, SHAPE)])
    assert capsys.readouterr().out == expected
    assert snapshot(tmp_path) == before


def test_a_link_in_the_place_of_an_output(tmp_path, capsys):
    """An output that is a link to a file elsewhere replaces the link, not that file."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out.json").symlink_to(tmp_path / "precious")
    file = write_squad(tmp_path / "squad.json")
    main(["augment", str(file), "--output", str(tmp_path / "out.json")])
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "out.json").is_symlink()


def test_a_link_in_the_place_of_a_temporary_file(tmp_path, capsys):
    """A hostile folder that foresees the temporary name does not get another file overwritten."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / f".out.json.{os.getpid()}.tmp").symlink_to(tmp_path / "precious")
    file = write_squad(tmp_path / "squad.json")
    main(["augment", str(file), "--output", str(tmp_path / "out.json")])
    assert (tmp_path / "precious").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "precious", "squad.json"]


# ---- run directories -------------------------------------------------------------------------

STORED = {  # settings.json of a finished run, as `evaluate` finds it
    "a list": "[]",
    "null": "null",
    "a text": '"robust"',
    "UTF-16": '{"loss": "robust"}'.encode("utf-16"),
    "NUL bytes": "\0" * 64,
    "nothing": "",
    "nested without end": "[" * 100_000,
    **{
        f"{name}: {value!r}": json.dumps({"max_length": 40, "stride": 4, name: value})
        for name, value in [
            ("loss", None),
            ("loss", ["robust"]),
            ("threshold", float("nan")),
            ("threshold", "0"),
            ("threshold", True),
            ("max_length", "40"),
            ("max_length", 40.5),
            ("max_length", True),
            ("max_length", -1),
            ("max_length", 10**30),
            ("stride", 4.5),
            ("stride", -1),
            ("stride", None),
            ("max_answer_length", 0),
            ("max_answer_length", 1.5),
            ("max_answer_length", False),
            ("max_answer_length", [16]),
        ]
    },
}


@pytest.mark.parametrize("what", STORED)
def test_stored_settings(what, tmp_path, capsys):
    """A damaged settings.json is named; its values are checked as those of the command line are."""
    content = STORED[what]
    content = content if isinstance(content, bytes) else content.encode()
    folder = checkpoint(tmp_path / "run", raw("settings.json", content))
    file = write_squad(tmp_path / "squad.json")
    refuse(capsys, tmp_path, ["settings.json"], "evaluate", folder, file)


class Stop(BaseException):
    """Ends a run in this process at a moment of our choice, as a kill would."""


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """(folder with squad.json and `run`, whose state is that of step 2; its arguments)."""
    folder = tmp_path_factory.mktemp("unfinished")
    file = write_squad(folder / "squad.json", [ROW | {"id": str(k)} for k in range(8)])
    arguments = ["train", "--train", file, "--eval", file, "--init", FIXTURES / "bert", *SHAPE]
    arguments += ["--batch-size", 4, "--epochs", 3, "--eval-every", 2, "--out", folder / "run"]
    arguments = [str(argument) for argument in arguments]
    step, calls = robust_eqa.adamw_step, []

    def third(*rest):
        calls.append(rest)
        if len(calls) == 3:
            raise Stop
        return step(*rest)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stop):
        patched.setattr(robust_eqa, "adamw_step", third)
        main(arguments)
    assert (folder / "run" / "state.safetensors").exists()
    return folder, arguments


def state(change):
    """folder -> its state with {name: tensor} and {key: text} changed."""

    def spoil(folder):
        path = folder / "state.safetensors"
        tensors, content = load_file(path), path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        about = json.loads(content[8 : 8 + size])["__metadata__"]
        change(tensors, about)
        save_file(tensors, path, about)

    return spoil


def half(folder):
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def stored(**changes):
    def spoil(folder):
        found = json.loads((folder / "settings.json").read_text()) | changes
        found = {name: value for name, value in found.items() if value != "gone"}
        (folder / "settings.json").write_text(json.dumps(found, indent=2))

    return spoil


RUNS = {  # what: (how an unfinished run is damaged, one of these is named)
    "half a state": (half, ["state.safetensors"]),
    "an empty state": (raw("state.safetensors", b""), ["state.safetensors"]),
    "a state of another model": (state(lambda x, _: x.pop("words.weight")), ["words.weight"]),
    "one number for a matrix": (
        state(lambda x, _: x.update({"head.weight": torch.ones(1)})),
        ["head.weight", "state.safetensors"],
    ),
    "another random state": (
        state(lambda x, _: x.update({"random": torch.zeros(7, dtype=torch.uint8)})),
        ["state.safetensors"],
    ),
    "a step before the first": (state(lambda _, m: m.update(step="-5")), ["state.safetensors"]),
    "a step after the last": (state(lambda _, m: m.update(step="500")), ["state.safetensors"]),
    "a step in words": (state(lambda _, m: m.update(step="two")), ["state.safetensors"]),
    "a log that is no list": (state(lambda _, m: m.update(log="7")), ["state.safetensors"]),
    "no log": (state(lambda _, m: m.pop("log")), ["state.safetensors"]),
    "NaN in the state": (
        state(lambda x, _: x.update({"head.weight": x["head.weight"] * float("nan")})),
        ["state.safetensors"],
    ),
    "a folder for the state": (
        lambda f: ((f / "state.safetensors").unlink(), (f / "state.safetensors").mkdir()),
        ["state.safetensors"],
    ),
    "settings are a list": (raw("settings.json", b"[1]"), ["settings.json"]),
    "settings cut short": (raw("settings.json", b'{"train": "sq'), ["settings.json"]),
    "settings of nothing": (raw("settings.json", b""), ["settings.json"]),
    "settings in UTF-16": (raw("settings.json", "{}".encode("utf-16")), ["settings.json"]),
    "a setting is missing": (stored(lr="gone"), ["--lr"]),
    "other settings": (stored(lr=7, seed=8, qa_weight=9), ["--qa-weight 9"]),
    "no settings": (lambda f: (f / "settings.json").unlink(), ["nothing to resume"]),
}


@pytest.mark.parametrize("what", RUNS)
def test_resume_from_a_damaged_run(what, unfinished, tmp_path, capsys):
    """Named, and left as it is, so that nothing that might be saved is lost."""
    spoil, words = RUNS[what]
    source, arguments = unfinished
    run = shutil.copytree(source / "run", tmp_path / "run")
    stored(out=str(run))(run)  # as it was, but for its place
    spoil(run)
    arguments = [*arguments[:-1], run]
    refuse(capsys, tmp_path, words, *arguments, "--resume")


# ---- options ---------------------------------------------------------------------------------

OPTIONS = [  # those that test_commands lacks
    *("--lr=-inf", "--lr=1e10", "--lr=0,1", "--lr=", "--epochs=-inf", "--epochs=1e400"),
    *("--batch-size=1.5", "--batch-size=1e3", "--batch-size=0x10", "--batch-size=99999999999"),
    *("--max-length=0", "--max-length=-40", "--max-length=nan", "--max-length=100000000"),
    *("--stride=1e9", "--stride=nan", "--stride=384", "--max-answer-length=-1"),
    *("--synthetic=inf", "--synthetic=-inf", "--synthetic=half", "--limit=1e3", "--limit=nan"),
    *("--warmup=0.1", "--qa-weight=-1", "--qa-weight=inf", "--tagging-weight=nan"),
    *("--positive-weight=inf", "--positive-weight=nan", "--seed=1.5", "--seed=one", "--loss="),
    *("--synthetic-kind=", "--threshold=high", "--eval-every=-5", "--out="),
]


@pytest.mark.parametrize("option", OPTIONS)
def test_option(option, tmp_path, capsys, monkeypatch):
    """Out of range or of the wrong type: the last line says which option, nothing is written."""
    monkeypatch.chdir(tmp_path)
    file = write_squad(tmp_path / "squad.json")
    before = snapshot(tmp_path)
    arguments = ["train", "--limit=64", "--epochs=1", f"--eval={file}", f"--out={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, option])
    out, err = capsys.readouterr()
    *_, last = err.splitlines()
    assert caught.value.code == 2 and out == "", f"status {caught.value.code}: {out}{err}"
    assert re.match(r"(robust_eqa\.py train|pytest train|\S+ train)?:? ?error: \S", last), err
    name = option.split("=")[0].strip("-")
    assert name.replace("-", "_") in last.replace("-", "_"), f"{name} is not named: {last}"
    assert "Traceback" not in err and snapshot(tmp_path) == before, "something was written"


def test_an_evaluation_file_twice(tmp_path, capsys):
    """Scores are kept by name: two files of one name would hide each other."""
    (tmp_path / "a").mkdir()
    one, two = write_squad(tmp_path / "x.json"), write_squad(tmp_path / "a" / "x.json")
    for files in ([one, two], [one, one]):
        refuse(capsys, tmp_path, ["x.json"], "evaluate", FIXTURES / "bert", *files, *SHAPE)


def test_one_file_for_answers_and_scores(tmp_path, capsys):
    """The second would replace the first."""
    file, out = write_squad(tmp_path / "x.json"), tmp_path / "out.json"
    arguments = ["predict", FIXTURES / "bert", file, *SHAPE, "--output", out, "--scores"]
    refuse(capsys, tmp_path, ["--scores", "out.json"], *arguments, out)


# ---- outputs ---------------------------------------------------------------------------------


def dangling(folder):
    (folder / "link").symlink_to(folder / "link")
    return folder / "link" / "out.json"


def fifo(folder):
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


def below_a_file(folder):
    (folder / "file").write_text("precious")
    return folder / "file" / "new" / "out.json"


OUTPUTS = {
    "a device": lambda folder: Path("/dev/full"),
    "below a device": lambda folder: Path("/dev/null/out.json"),
    "where the system lets nobody write": lambda folder: Path("/proc/out.json"),
    "a pipe": fifo,
    "below a link to itself": dangling,
    "below a file, deeply": below_a_file,
    "a name too long": lambda folder: folder / ("x" * 300),
    "a NUL byte": lambda folder: folder / "a\0b",
    "the folder itself": lambda folder: folder / ".",
}


@pytest.mark.parametrize("command", ["augment", "attack", "predict", "scores", "train"])
@pytest.mark.parametrize("what", OUTPUTS)
def test_output(what, command, tmp_path, capsys):
    """What cannot be written is refused, and no other output is written before that."""
    if command == "train" and what in ("a pipe", "the folder itself"):
        pytest.skip("a run writes into a folder")
    file, place = write_squad(tmp_path / "squad.json"), OUTPUTS[what](tmp_path)
    answers = ["predict", FIXTURES / "bert", file, *SHAPE, "--output"]
    run = ["train", "--train", file, "--init", FIXTURES / "bert", *SHAPE, "--epochs", 1, "--out"]
    arguments = {
        "augment": ["augment", file, "--output", place],
        "attack": ["attack", file, "--kind", "negation", "--output", place],
        "predict": [*answers, place],
        "scores": [*answers, tmp_path / "answers.json", "--scores", place],
        "train": [*run, place],
    }
    names = [re.escape(str(place))[:60], str(place), place.name]
    refuse(capsys, tmp_path, names, *arguments[command])


# ---- as a shell sees it ----------------------------------------------------------------------


def child(*arguments, env=(), stdout=subprocess.PIPE):
    """The command as a child process of its own."""
    command = [sys.executable, ROOT / "robust_eqa.py", *arguments]
    how = {"env": os.environ | dict(env), "stdout": stdout, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **how)


def test_output_that_cannot_be_printed(tmp_path):
    """A narrow encoding, a full device and a closed pipe end without a traceback."""
    file, out = write_squad(tmp_path / "squad.json"), tmp_path / "out.json"
    strange = tmp_path / "caf\udce9.json"  # a name in Latin-1
    narrow = {"PYTHONIOENCODING": "ascii"}
    ask = ["ask", FIXTURES / "bert", "--context", "東京", "--question", "Who?"]
    ask += ["--threshold", "inf", *map(str, SHAPE)]
    read, write = os.pipe()
    os.close(read)
    twice = tmp_path / "again.json"
    cases = {
        "a name that is no UTF-8": child("augment", file, "--output", strange, env=narrow),
        "an encoding without the answer": child(*ask, env=narrow),
        "a full device": child("augment", file, "--output", out, stdout=open("/dev/full", "w")),
        "a closed pipe": child("augment", file, "--output", twice, stdout=write),
    }
    os.close(write)
    failed = {}
    for what, process in cases.items():
        err = process.communicate(timeout=120)[1].decode(errors="replace")
        status = process.returncode
        if "Traceback" in err or "Exception ignored" in err or status not in (0, 2, 141):
            failed[what] = f"status {status}: {err[-300:]}"
    assert not failed, "\n".join(f"{what}: {how}" for what, how in failed.items())
    assert strange.exists() and out.exists() and twice.exists()


# ---- odd, but it works -----------------------------------------------------------------------

ODD = {  # what: (context, answers)
    "300,000 letters without a space": ("a" * 300_000, []),
    "60,000 words": ("the cafe near " * 20_000, []),
    "no token at all": ("\u200b\u00ad", []),
    "an answer without a token": ("a \u200b b", [("\u200b", 2)]),
    "an offset of 40 digits": ("a cafe", [("cafe", 10**40)]),
    "a very negative offset": ("a cafe", [("cafe", -(10**40))]),
    "combining marks only": ("\u0301\u0302\u0303 \u0301", []),
    "right to left": ("\u202eAda \u05d0\u05d1\u05d2 \u0627\u0644\u0639\u202c", [("\u05d0", 5)]),
    "NUL in the text": ("a \0 cafe\0", [("cafe\0", 4)]),
    "control characters": ("".join(map(chr, range(1, 32))) + "a", []),
    "a family": ("👩‍👩‍👧‍👦" * 50, [("👩‍👩‍👧‍👦", 0)]),
    "special tokens": ("[CLS] [SEP] [PAD] <s> </s>", [("[SEP]", 6)]),
}


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("what", ODD)
def test_odd_but_usable(what, family, tmp_path, capsys):
    """Answered from the text, or with nothing; never with an error."""
    context, answers = ODD[what]
    if family == "roberta" and len(context) > 10**5:
        context = context[:20_000]  # its tokens are many more
    golds = {"text": [t for t, _ in answers], "answer_start": [str(s) for _, s in answers]}
    row = ROW | {"context": context, "answers": golds}
    file, out = write_squad(tmp_path / "odd.json", [row]), tmp_path / "answers.json"
    arguments = ["predict", FIXTURES / family, file, "--output", out, "--threshold", "inf"]
    main([str(argument) for argument in [*arguments, "--scores", tmp_path / "scores.json", *SHAPE]])
    ((key, answer),) = json.loads(out.read_text()).items()
    assert key == "id-7" and answer in context, f"{answer!r} is not in the context"
    (score,) = json.loads((tmp_path / "scores.json").read_text()).values()
    assert isinstance(score, float) and abs(score) < 1e31, f"no-answer score {score}"


def test_what_training_leaves_out_is_named(tmp_path, capsys):
    """Questions with an answer that stands nowhere: how many, and the ids of at most five."""
    nowhere = {"text": ["the cafe", "the mill"], "answer_start": [15, 0]}
    lost = [ROW | {"id": f"lost{k}", "answers": nowhere} for k in range(6)]
    file = write_squad(tmp_path / "squad.json", [ROW, *lost])
    arguments = ["train", "--train", file, "--init", FIXTURES / "bert", *SHAPE, "--epochs", 1]
    main([str(argument) for argument in [*arguments, "--out", tmp_path / "run"]])
    err = capsys.readouterr().err
    (line,) = (line for line in err.splitlines() if "left out" in line)
    assert line.startswith("6 questions "), line
    named = re.findall(r"lost\d", line)
    assert len(named) == len({*named}) == 5, line
    assert "\n1 windows of " in "\n" + err, err


def test_a_pipe_can_be_read(tmp_path, capsys):
    """`evaluate run <(zcat squad.json.gz)`: a file that can be read once, and has no size."""
    pipe = fifo(tmp_path)
    content = gzip.compress(json.dumps([ROW]).encode())
    writer = threading.Thread(target=pipe.write_bytes, args=[content], daemon=True)
    writer.start()
    main(["augment", str(pipe), "--output", str(tmp_path / "out.json")])
    writer.join(10)
    assert json.loads((tmp_path / "out.json").read_text())["data"][0]["paragraphs"]


def test_links_of_the_hub_cache_work(tmp_path, capsys):
    """snapshots/<revision>/config.json is a link to ../../blobs/<hash>, as the Hub's cache has it."""
    blobs, folder = tmp_path / "models--x--y" / "blobs", tmp_path / "models--x--y/snapshots/abc"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(FIXTURES / "bert" / name, blobs / f"blob-{name}")
        (folder / name).symlink_to(f"../../blobs/blob-{name}")
    file = write_squad(tmp_path / "squad.json")
    main(["evaluate", str(folder), str(file), *map(str, SHAPE)])
    assert "squad.json" in capsys.readouterr().out
