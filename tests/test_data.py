"""Files, windows, batches, synthetic answers, attacks and the toy corpus, against something else.

Windows are compared with tokenizers' own pair truncation, labels with a search over all tokens,
everything that changes text with the text before. EQA_DATA names a folder with real data (default
../shared/data) and EQA_MINILM one with a real tokenizer; without them those cases are skipped.
"""

import functools
import gzip
import http.server
import itertools
import json
import os
import random
import re
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, processors

from data import (
    ANSWER,
    ATTACKS,
    DATASETS,
    ELSEWHERE,
    NO_ANSWER,
    SENTENCE_END,
    TOY,
    UNLOCATED,
    Answer,
    InputError,
    Question,
    add_one_sentence,
    add_synthetic_answers,
    answer_pool,
    attack,
    collate,
    length_bucketed,
    make_windows,
    negate,
    read_questions,
    rematch,
    synthetic_answer,
    toy_corpus,
    write_file,
    write_questions,
)

ROOT = Path(__file__).parent.parent
REAL = Path(ROOT, os.environ.get("EQA_DATA", "../shared/data"))
MINILM = os.environ.get("EQA_MINILM")
NEEDS_MINILM = pytest.mark.skipif(not MINILM, reason="EQA_MINILM (a folder) is not set")
KINDS = ["evidence", "template", "mixed"]


def real(name):
    """The path of a file of real data; the test is skipped where there is none."""
    if not (REAL / name).exists():
        pytest.skip(f"{REAL / name} is not there (EQA_DATA)")
    return REAL / name


@functools.cache
def real_questions(name, every=1):
    """The questions of one article in `every`."""
    questions = read_questions(real(name))
    titles = list(dict.fromkeys(q.title for q in questions))[::every]
    return [q for q in questions if q.title in titles]


@functools.cache
def load(family):
    """A tokenizer of fixtures/ (or MiniLM's) that neither truncates nor pads."""
    folder = MINILM if family == "minilm" else Path(__file__).parent / "fixtures" / family
    tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


# ---- files -----------------------------------------------------------------------------------

CAFE = "Ada Lee opened the café: Ada and 😀."
LAKE = 'In Zürich,\n"by the lake"\u2028.'
THREE = [
    Question("q1", "Who opened it?", CAFE, [Answer("Ada Lee", 0), Answer("Ada", 25)], "Lakes"),
    Question("q2", "Who closed the café?", CAFE, [], "Lakes"),
    Question("q3", "Wo?", LAKE, [Answer('"by the lake"', 11)], "东京"),
]


def nested(version, **extra):
    """SQuAD's form of THREE: two articles; `extra` goes into every question."""
    qas = []
    for q in THREE:
        answers = [{"text": a.text, "answer_start": a.start} for a in q.answers]
        qas.append({"id": q.id, "question": q.question, "answers": answers})
        qas[-1] |= {key: value(q) for key, value in extra.items()}
    lakes = {"title": "Lakes", "paragraphs": [{"context": CAFE, "qas": qas[:2]}]}
    other = {"title": "东京", "paragraphs": [{"context": LAKE, "qas": qas[2:]}]}
    return {"version": version, "data": [lakes, other]}


def flat(q, kind=int):
    """The Hub's form of one question; `kind` is the type of its offsets."""
    texts, starts = [a.text for a in q.answers], [kind(a.start) for a in q.answers]
    answers = {"text": texts, "answer_start": starts}
    row = {"id": q.id, "title": q.title, "context": q.context, "question": q.question}
    return row | {"answers": answers}


def lines(rows, **how):
    return "\n".join(json.dumps(row, **how) for row in rows)


PLAUSIBLE = [{"text": "Ada", "answer_start": 0}]
IMPOSSIBLE = {"is_impossible": lambda q: not q.answers, "plausible_answers": lambda q: PLAUSIBLE}
FORMATS = {
    "v1.1": json.dumps(nested("1.1")),
    "v2.0": json.dumps(nested("v2.0", **IMPOSSIBLE)),
    "v2.0 indented, with a byte order mark": "\ufeff" + json.dumps(nested("v2.0"), indent=1),
    "flat": json.dumps({"data": [flat(q) for q in THREE]}, ensure_ascii=False),
    "flat, offsets as strings": json.dumps({"data": [flat(q, str) for q in THREE]}),
    "flat list": json.dumps([flat(q) for q in THREE]),
    "JSON Lines": lines(map(flat, THREE)),
    "JSON Lines, not escaped": lines((flat(q, str) for q in THREE), ensure_ascii=False),
    "JSON Lines, from Windows": lines(map(flat, THREE)).replace("\n", "\r\n\r\n") + "\r\n",
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_reads_the_same(form, suffix, tmp_path, capsys):
    """The same three questions, their titles and answers in order, in every form; no remarks."""
    path, content = tmp_path / f"x.json{suffix}", FORMATS[form].encode()
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert read_questions(path) == THREE
    assert read_questions(str(path)) == THREE
    assert capsys.readouterr() == ("", "")


def write_json(path, rows):
    path.write_text(json.dumps({"data": rows}))
    return path


def row(**changes):
    """A flat question that can be read, but for the changes; a value of None takes the key away."""
    changed = flat(Question("id-7", "Where?", "a b c", [Answer("b", 2)])) | changes
    return {key: value for key, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    "context, text, start, expected",
    [
        ("a cat, a cat", "cat", 9, 9),  # at its offset, though the text stands elsewhere too
        ("a cat, a dog", "dog", 0, 9),  # once, elsewhere
        ("a cat, a dog", "dog", -4, 9),
        ("a cat, a dog", "dog", 400, 9),
        ("a cat, a cat", "cat", 0, UNLOCATED),  # twice
        ("aaa", "aa", 5, UNLOCATED),  # twice, overlapping
        ("a cat", "Cat", 2, UNLOCATED),  # nowhere
        ("a cat", "cat", -3, 2),  # a negative offset does not count from the end
        ("😀 cat", "cat", 3, 2),  # offsets count characters, not UTF-16 halves
    ],
)
def test_locate(context, text, start, expected, tmp_path):
    """An answer not at its offset is found elsewhere exactly if it occurs once; files as well."""
    answers = {"text": [text], "answer_start": [start]}
    path = write_json(tmp_path / "x.json", [row(context=context, answers=answers)])
    assert read_questions(path)[0].answers == [Answer(text, expected)]


def test_lost_answers_are_kept(tmp_path, capsys):
    """An answer that stands nowhere stays, for scoring by text, and its question is named."""
    rows = [row(), row(id="lost", answers={"text": ["z", "b"], "answer_start": [0, 0]})]
    questions = read_questions(write_json(tmp_path / "x.json", rows))
    assert [q.answers for q in questions] == [
        [Answer("b", 2)],
        [Answer("z", UNLOCATED), Answer("b", 2)],
    ]
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and "1 questions (lost)" in err, err


def article(paragraph):
    """A file of two articles, the first of which can be read."""
    good = {"context": "a", "qas": [{"id": "good", "question": "Who?", "answers": []}]}
    return json.dumps({"data": [{"paragraphs": [good]}, {"paragraphs": paragraph}]})


def rows(**changes):
    """A file of two flat questions, the first of which can be read."""
    return json.dumps([row(id="good"), row(**changes)])


PACKED = gzip.compress(json.dumps([row()]).encode())
# What is broken -> the file, and the places of which its message must name one ("" for none).
BROKEN = {
    "no file": (None, [""]),
    "a folder": ("folder", [""]),
    "nothing": ("", [""]),
    "not UTF-8": ("é".encode("latin-1"), [""]),
    "UTF-16": (json.dumps(row()).encode("utf-16"), [""]),
    "half a gzip": (PACKED[:-9], [""]),
    "a gzip with a wrong checksum": (PACKED[:-8] + b"x" * 8, [""]),
    "gzip's first two bytes": (b"\x1f\x8b", [""]),
    "not JSON": ("id,context\n1,a", [""]),
    "half a JSON": (FORMATS["v2.0"][:-30], [""]),
    "JSON broken in its line 9": (json.dumps([row()], indent=1).replace('"b"', "b"), ["line 9"]),
    "JSON Lines broken in line 3": (lines([row(), row(id="8")]) + "\n{oops}", ["line 3"]),
    "a million brackets": ("[" * 1_000_000, [""]),
    "a number too long for Python": ('[{"id": ' + "1" * 5000 + "}]", [""]),
    "a number": ("3", [""]),
    "null": ("null", [""]),
    "an object": ("{}", [""]),
    "a list of lists": ("[[1]]", [""]),
    "no questions": ('{"data": []}', [""]),
    "data is an object": ('{"data": {"paragraphs": []}}', [""]),
    "an article is text": (json.dumps([row(id="good"), "x"]), ["data[1]"]),
    "paragraphs is an object": (article({"context": "a"}), ["data[1]"]),
    "a paragraph is a number": (article([5]), ["data[1]"]),
    "no qas": (article([{"context": "a"}]), ["data[1]"]),
    "qas is an object": (article([{"context": "a", "qas": {"id": "b"}}]), ["data[1]"]),
    "a question is null": (article([{"context": "a", "qas": [None]}]), ["data[1]"]),
    "an id twice": (json.dumps([row(), row(id="good"), row()]), ["id-7"]),
    "an id twice, as number and text": (json.dumps([row(id=11), row(id="11")]), ["11"]),
    "impossible, with an answer": (rows(is_impossible=True), ["id-7", "data[1]"]),
    **{
        f"{what} {name}": (rows(**{name: value}), ["id-7", "data[1]", "ud800"])
        for name in ("id", "context", "question")
        for what, value in {
            "no": None,
            "empty": " \n",
            "half a surrogate pair in": "a \ud800 b",
            "a list as": ["a"],
            "true as": True,
        }.items()
        if (what, name) != ("empty", "id")
    },
    **{
        f"answers: {answers!r:.60}": (rows(answers=answers), ["id-7", "data[1]"])
        for answers in [
            None,
            "b",
            {},
            {"text": "b", "answer_start": 2},
            {"text": ["b"]},
            {"text": ["b", "c"], "answer_start": [2]},
            {"text": ["b"], "answer_start": []},
            {"text": [" "], "answer_start": [1]},
            {"text": ["b", ""], "answer_start": [2, 0]},
            {"text": [None], "answer_start": [2]},
            {"text": ["\udc00"], "answer_start": [2]},
            {"text": ["b"], "answer_start": [2.5]},
            {"text": ["b"], "answer_start": [float("inf")]},
            {"text": ["b"], "answer_start": [True]},
            {"text": ["b"], "answer_start": ["two"]},
            {"text": ["b"], "answer_start": ["²"]},
            {"text": ["b"], "answer_start": [[2]]},
            ["b"],
            [{"text": "b"}],
            [{"answer_start": 2}],
            [{"text": "b", "answer_start": None}],
        ]
    },
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case, tmp_path):
    """InputError, one line, with the name of the file and the place or id at which to look."""
    content, places = BROKEN[case]
    path = tmp_path / "x.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as caught:
        read_questions(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message, message
    message = message.replace(str(path), "FILE")
    assert any(place in message for place in places), f"none of {places} in: {message}"
    assert "good" not in message, f"names a question that can be read: {message}"


def test_odd_but_usable(tmp_path):
    """Ids as numbers, impossible without `answers`, an empty list, no title or null: all read."""
    impossible = row(id=3, is_impossible=True, answers=None) | {"title": None}
    rows = [row(id=1, answers=[]), row(id=2, is_impossible=False), impossible]
    articles = [{"title": None, "paragraphs": [{"context": "a", "qas": [impossible | {"id": 4}]}]}]
    for path in (write_json(tmp_path / "x", rows), write_json(tmp_path / "y", articles)):
        questions = read_questions(path)
        assert [(q.id, q.answers) for q in questions] in (
            [("1", []), ("2", [Answer("b", 2)]), ("3", [])],
            [("4", [])],
        )
        assert {q.title for q in questions} == {""}, "no title must be an empty one"


texts = st.text(min_size=1, max_size=12).filter(str.strip)


@st.composite
def located_questions(draw):
    """A question whose answers stand at their offsets, or nowhere."""
    context, answers = draw(texts), []
    for start in draw(st.lists(st.integers(0, len(context) - 1), max_size=3)):
        text = context[start : start + draw(st.integers(1, 4))]
        answers += [Answer(text, start)] if text.strip() else []
    answers += [Answer("x" * 20, UNLOCATED)] * draw(st.integers(0, 1))
    return Question(draw(texts), draw(texts), context, answers, draw(st.sampled_from(["", "T é"])))


@settings(deadline=None, max_examples=50)
@given(st.lists(located_questions(), min_size=1, max_size=6, unique_by=lambda q: q.id))
def test_written_and_read_back(tmp_path_factory, questions):
    """Every question in its place, equal, gzipped or not; the same bytes each time."""
    folder = tmp_path_factory.mktemp("written")
    for path in (folder / "new/x.json", folder / "x.json.gz"):
        write_questions(questions, path)
        first = path.read_bytes()
        write_questions(read_questions(path), path)
        assert read_questions(path) == questions
        assert path.read_bytes() == first and (first[:2] == b"\x1f\x8b") == (path.suffix == ".gz")
    for article in json.loads((folder / "new/x.json").read_bytes())["data"]:
        for qa in itertools.chain(*(p["qas"] for p in article["paragraphs"])):
            assert qa["is_impossible"] == (not qa["answers"]), qa


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    """InputError naming the file; no half file, no temporary file, the old content kept."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for bad in ("folder", "file/x.json", "file/new/x.json", "", ".", "/"):
        with pytest.raises(InputError, match=re.escape(str(Path(bad)))):
            write_file(bad, b"new")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_questions(THREE, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize(
    "part, size, answerable, lost",
    [("has-answer", 238, 238, 8), ("competitive", 250, 0, 0), ("non-competitive", 246, 0, 0)],
)
def test_ace_whqa(part, size, answerable, lost):
    """Published with the offset "0" everywhere: found again by text where that is one place."""
    path = real(f"ace-whqa-{part}.json")
    questions = read_questions(path)
    articles = json.loads(path.read_text())["data"]
    raw = [(p["context"], q) for a in articles for p in a["paragraphs"] for q in p["qas"]]
    assert len(questions) == len(raw) == size
    expected = []
    for context, q in raw:
        found = [
            [m.start() for m in re.finditer(re.escape(a["text"]), context)] for a in q["answers"]
        ]
        expected.append([0 if 0 in f else f[0] if len(f) == 1 else UNLOCATED for f in found])
    assert [[a.start for a in q.answers] for q in questions] == expected
    assert sum(bool(q.answers) for q in questions) == answerable
    assert sum(UNLOCATED in starts for starts in expected) == lost


# ---- data by name ----------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The network: answers[0] is what every address gives, requests the addresses asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answers, requests = [(200, b"", 0)], []

        def do_GET(self):
            status, content, missing = self.answers[0]
            self.requests.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + missing))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        opened, here = urllib.request.urlopen, f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(
            urllib.request, "urlopen", lambda url, **how: opened(f"{here}/{url}", **how)
        )
        monkeypatch.setenv("EQA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "*")
        yield Handler
        running.shutdown()


def test_data_by_name_is_fetched_once(server, tmp_path):
    """The first read fetches the address of the table into the cache, the second reads it there."""
    server.answers[0] = 200, FORMATS["v2.0"].encode(), 0
    assert read_questions("agent-dev") == read_questions("agent-dev") == THREE
    assert server.requests == [
        "/https://huggingface.co/datasets/sonquoctran/SQuAD_AGent/resolve/main/SQuAD_AGent_dev.json"
    ]
    kept = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert kept == [tmp_path / "cache" / "agent-dev.json"]
    assert set(DATASETS) == {
        *("squad2-train", "squad2-dev", "addonesent", "addsent"),
        *("multians", "multians-agent", "agent-train", "agent-dev"),
    }


@pytest.mark.parametrize(
    "name, answer",
    [
        ("squad2-dev", (200, FORMATS["v2.0"].encode(), 0)),  # not the file of the checksum
        ("agent-dev", (200, FORMATS["v2.0"].encode(), 9)),  # nine bytes never come
        ("agent-dev", (404, b"", 0)),
        ("agent-dev", None),  # no network
    ],
)
def test_a_failed_fetch_leaves_nothing(name, answer, server, tmp_path, monkeypatch):
    """InputError with the address and the place to put the file at; the cache stays empty."""
    server.answers[0] = answer
    if answer is None:

        def unreachable(*_, **__):
            raise urllib.error.URLError("Name or service not known")

        monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError) as caught:
        read_questions(name)
    message = str(caught.value)
    assert "https://" in message and str(tmp_path / "cache" / name) in message, message
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


# ---- windows ---------------------------------------------------------------------------------


def pair_truncation(questions, tokenizer, max_length, stride):
    """Yield what tokenizers makes of each pair: (question, ids, segments, offsets) per window."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, stride=stride, strategy="only_second")
    for k in range(0, len(questions), 500):
        pairs = [(q.question, q.context) for q in questions[k : k + 500]]
        for index, encoding in enumerate(tokenizer.encode_batch(pairs), k):
            for part in (encoding, *encoding.overflowing):
                offsets = [
                    pair if sequence == 1 else (0, 0)
                    for pair, sequence in zip(part.offsets, part.sequence_ids)
                ]
                yield index, part.ids, part.type_ids, offsets


def assert_pair_truncation(questions, tokenizer, max_length, stride):
    """make_windows gives the same windows, in the same order, and shows where it does not."""
    windows = make_windows(questions, tokenizer, max_length, stride)
    theirs = list(pair_truncation(questions, tokenizer, max_length, stride))
    assert len(windows) == len(theirs)
    names = "question_index", "input_ids", "segment_ids", "offsets"
    for i, expected in enumerate(theirs):
        for name, value in zip(names, expected):
            ours = getattr(windows[i], name)
            if ours != value:
                pairs = enumerate(itertools.zip_longest(ours, value)) if name != names[0] else ()
                where = next((f"{t}: {a}, not {b}" for t, (a, b) in pairs if a != b), f"{ours}")
                question = questions[theirs[i][0]]
                pytest.fail(f"window {i}, {name} {where}, of {question}")
    return windows


PIECES = ["the lake", "opened", "ownership", "Ada's", "Café", "cafe\u0301", "\u0301", "İ", "ß", "ﬁ"]
PIECES += ["東京", "한국", "\u1112\u1161", "😀", "👩‍👧", "\u200b", "\u00ad", "\u00a0", "\u2028"]
PIECES += [
    " ",
    " ",
    "  ",
    "\0",
    "\n",
    "\t",
    ".",
    "1,5",
    "[SEP]",
    "</s>",
    "<mask>",
    "[UNK]",
    "ك\u0651",
]
odd_texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=30).map("".join)
families = st.sampled_from(["bert", "roberta"])


@st.composite
def window_cases(draw):
    """A tokenizer, one to three questions of odd text with odd answers, max_length and stride."""
    tokenizer, questions = load(draw(families)), []
    for k in range(draw(st.integers(1, 3))):
        context, answers = draw(odd_texts), []
        for start in draw(st.lists(st.integers(0, max(0, len(context) - 1)), max_size=3)):
            answers.append(Answer(context[start : start + draw(st.integers(1, 9))], start))
        answers.insert(draw(st.integers(0, 3)), Answer("nowhere", UNLOCATED))
        answers = answers if draw(st.booleans()) else [a for a in answers if a.start >= 0]
        questions.append(Question(str(k), draw(odd_texts)[:20], context, answers))
    stride = draw(st.integers(0, 9))
    needed = max(len(tokenizer.encode(q.question, "").ids) for q in questions) + stride
    return tokenizer, questions, needed + draw(st.integers(1, 12)), stride


@settings(deadline=None, max_examples=150)
@given(window_cases())
def test_windows_are_pair_truncation(case):
    """Ids, segments and offsets of odd text; they cover the context and overlap by the stride."""
    tokenizer, questions, max_length, stride = case
    windows = assert_pair_truncation(questions, tokenizer, max_length, stride)
    for index, q in enumerate(questions):
        tokens, joined = tokenizer.encode(q.context, add_special_tokens=False).ids, []
        for w in (w for w in windows if w.question_index == index):
            assert len(w.input_ids) == len(w.segment_ids) == len(w.offsets) <= max_length
            part = w.input_ids[w.context_slice]
            overlap = stride if joined else 0
            assert joined[len(joined) - overlap :] == part[:overlap], "neighbours share the stride"
            joined += part[overlap:]
        assert joined == tokens, "the union of the windows is not the context"


def test_add_prefix_space_moves_first_offsets_by_the_space():
    """A byte-level tokenizer that adds a space: windows from the second on begin after theirs."""
    tokenizer = Tokenizer.from_str(load("roberta").to_str())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=True
    )
    context = "the lake was  opened\nby the 😀 owner of the café, " * 3
    question, moved = Question("q", "who?", context, []), 0
    theirs = list(pair_truncation([question], tokenizer, 16, 3))
    windows = make_windows([question], tokenizer, 16, 3)
    assert len(windows) == len(theirs)
    for i, (_, ids, segments, offsets) in enumerate(theirs):
        w, first = windows[i], windows[i].context_slice.start
        assert (w.input_ids, w.segment_ids) == (ids, segments), f"window {i}"
        ours = w.offsets[first]
        if ours != offsets[first]:
            start, end = offsets[first]
            bare = start == end  # the token is nothing but the space: empty, on either side of it
            assert ours == (start + 1, end + bare), f"window {i}: {ours}, not {start, end}"
            assert i > 0 and context[start].isspace()
            moved += 1
        assert w.offsets[first + 1 :] == offsets[first + 1 :], f"window {i}"
    assert moved > 2, "no window begins with a space: the case tests nothing"


def cover(offsets, answer):
    """(first, last) of the tokens that have a part in the answer, None if there are none."""
    start, end = answer.start, answer.start + len(answer.text)
    inside = [t for t, (s, e) in enumerate(offsets) if s < end and e > start and answer.start >= 0]
    return (inside[0], inside[-1]) if inside else None


def assert_labels(windows, questions, tokenizer, max_length, stride):
    """Spans in gold order, label, multi-hot labels, first gold's position and text, by search."""
    encode = functools.cache(
        lambda *pair: tokenizer.encode(*pair, add_special_tokens=len(pair) > 1)
    )
    starts = {}
    for w in windows:
        q = questions[w.question_index]
        offsets, room = encode(q.context).offsets, max_length - len(encode(q.question, "").ids)
        start = starts.get(w.question_index, 0)  # the context token this window begins with
        starts[w.question_index] = start + room - stride
        covers = [cover(offsets, answer) for answer in q.answers]
        inside = [c if c and start <= c[0] and c[1] < start + room else None for c in covers]
        at = w.context_slice.start - start
        spans = [(c[0] + at, c[1] + at) for c in inside if c]
        assert w.answer_spans == spans, q
        assert w.label == (ANSWER if spans else ELSEWHERE if q.answers else NO_ANSWER), q
        for c, (s, e) in zip(filter(None, inside), spans):
            text = q.context[offsets[c[0]][0] : offsets[c[1]][1]].strip()
            assert w.text(s, e) == text, f"{w.text(s, e)!r}, not {text!r}, of {q}"
        batch = collate([w])
        length = len(w.input_ids)
        for labels, ends in ((batch.start_labels, 0), (batch.end_labels, 1)):
            hot = {span[ends] for span in spans}
            assert labels.tolist() == [[float(t in hot) for t in range(length)]], q
        first = spans[0] if inside and inside[0] else (0, 0)
        assert (batch.start_positions.item(), batch.end_positions.item()) == first, q


@settings(deadline=None, max_examples=150)
@given(window_cases())
def test_labels_are_the_smallest_covers_inside(case):
    """Of odd answers to odd text, unlocatable ones among them."""
    tokenizer, questions, *shape = case
    assert_labels(make_windows(questions, tokenizer, *shape), questions, tokenizer, *shape)


@NEEDS_MINILM
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(384, 128), (96, 32)])
@pytest.mark.parametrize("name", ["squad2-dev", "addonesent"])
def test_windows_of_real_text(name, shape, every):
    """With a real vocabulary: no difference to pair truncation, every gold inside labelled."""
    questions = real_questions(f"{name}.json.gz", every)
    windows = assert_pair_truncation(questions, load("minilm"), *shape)
    assert_labels(windows, questions, load("minilm"), *shape)


@pytest.mark.parametrize(
    "family, context, answer, text, tokens",
    [
        ("bert", "he opened the lake", "open", "opened", 1),  # as "Japan" in "Japanese"
        ("bert", "by her ownership of", "ship", "ship", 1),
        ("bert", "the cafe\u0301 is near", "cafe\u0301", "cafe", 1),  # accents are no token
        ("bert", "the cafe\u0301 is near", "\u0301", None, 0),
        ("bert", "the \u200b lake", "\u200b", None, 0),  # nor are zero-width characters
        ("bert", "the la\u200bke is", "la\u200bke", "la\u200bke", 1),
        ("bert", "near 東京 it is", "京", "京", 1),
        ("bert", "near \U0001f600!", "\U0001f600", "\U0001f600", 1),
        ("roberta", "near \U0001f600!", "\U0001f600", "\U0001f600", 4),  # one character, 4 bytes
        ("roberta", "is \U0001f469\u200d\U0001f467 it", "\U0001f469", "\U0001f469", 4),
        ("roberta", "the  ZZ", "ZZ", "ZZ", 2),  # the spaces are tokens of their own
        ("roberta", "the  ZZ", " ZZ", "ZZ", 3),
        ("roberta", "the \u200b lake", "\u200b", "\u200b", 3),
        ("roberta", "near it", "xyz", None, 0),
    ],
)
def test_covers_by_hand(family, context, answer, text, tokens):
    """Answers that are not whole tokens, whole words or whole bytes; None has no token at all."""
    question = Question("q", "who?", context, [Answer(answer, context.find(answer))])
    (w,) = make_windows([question], load(family), 60, 10)
    assert w.label == (ELSEWHERE if text is None else ANSWER)
    assert [w.text(*span) for span in w.answer_spans] == ([] if text is None else [text])
    assert [e - s + 1 for s, e in w.answer_spans] == ([tokens] if tokens else [])


def test_windows_by_hand():
    """Twelve words, windows of six that share two: what is cut is not labelled, order is kept."""
    context = "the a in is it was by of near lake cafe owner"
    cut, shared = Answer("was by", context.find("was by")), Answer("lake", context.find("lake"))
    lost, far = Answer("nowhere", UNLOCATED), Answer("owner", context.find("owner"))
    golds = [[cut, shared], [shared, cut], [lost, shared], [far], [lost], []]
    questions = [Question(str(k), "who", context, answers) for k, answers in enumerate(golds)]
    windows = make_windows(questions, load("bert"), 10, 2)  # [CLS] who [SEP] 6 tokens [SEP]
    found = [(w.label, w.answer_spans) for w in windows]
    none, elsewhere = (NO_ANSWER, []), (ELSEWHERE, [])
    assert found == [
        *(elsewhere, (ANSWER, [(4, 5), (8, 8)]), (ANSWER, [(4, 4)])),
        *(elsewhere, (ANSWER, [(8, 8), (4, 5)]), (ANSWER, [(4, 4)])),
        *(elsewhere, (ANSWER, [(8, 8)]), (ANSWER, [(4, 4)])),
        *(elsewhere, elsewhere, (ANSWER, [(6, 6)])),
        *[elsewhere] * 3,
        *[none] * 3,
    ]
    batch = collate(windows)
    # The first listed gold, and no other, is what default training points at.
    assert batch.start_positions.tolist() == [0, 4, 0, 0, 8, 4, 0, 0, 0, 0, 0, 6] + [0] * 6
    assert batch.end_positions.tolist() == [0, 5, 0, 0, 8, 4, 0, 0, 0, 0, 0, 6] + [0] * 6
    assert len({ANSWER, ELSEWHERE, NO_ANSWER}) == 3
    assert [w.context_slice for w in windows[:3]] == [slice(3, 9), slice(3, 9), slice(3, 7)]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_batch_is_its_windows_padded(family):
    """Every array of a batch, in any order of windows, is the windows' own, zero where padded."""
    questions = toy_corpus(40, 3)
    windows = make_windows(questions, load(family), 120, 20)
    indices = np.random.default_rng(0).permutation(len(windows))[:25]
    batch = collate([windows[i] for i in indices])
    width = max(len(windows[i].input_ids) for i in indices)
    kinds = [torch.int64] * 2 + [torch.bool] * 2 + [torch.float32] * 2 + [torch.int64] * 2
    assert [array.dtype for array in batch] == kinds
    for b, i in enumerate(indices):
        w = windows[i]
        length, spans = len(w.input_ids), w.answer_spans
        context = range(*w.context_slice.indices(length))
        expected = {
            "input_ids": w.input_ids,
            "segment_ids": w.segment_ids,
            "mask": [True] * length,
            "context_mask": [t in context for t in range(length)],
            "start_labels": [float(t in {s for s, _ in spans}) for t in range(length)],
            "end_labels": [float(t in {e for _, e in spans}) for t in range(length)],
        }
        for name, values in expected.items():
            ours = getattr(batch, name)[b].tolist()
            assert ours == values + [0] * (width - length), f"{name} of window {i}"
        first = spans[0] if spans else (0, 0)  # every toy question has one gold
        assert (batch.start_positions[b].item(), batch.end_positions[b].item()) == first


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("stride", [0, 5])
def test_a_question_too_long(family, stride):
    """Refused by name where fewer than stride + 1 context tokens fit; one token more is enough."""
    tokenizer, long = load(family), "who opened the lake cafe near it? " * 3
    questions = [Question(f"id-{k}", "who?", "the lake was near", []) for k in range(3)]
    questions[1] = replace(questions[1], question=long)
    enough = len(tokenizer.encode(long, "").ids) + stride + 1
    assert_pair_truncation(questions, tokenizer, enough, stride)
    for max_length in (enough - 1, enough - stride - 15, 1):
        with pytest.raises(InputError, match="id-[01]" if max_length == 1 else "id-1"):
            make_windows(questions, tokenizer, max_length, stride)  # and no PanicException


def test_no_questions_no_windows():
    """An empty list is a list."""
    assert len(make_windows([], load("bert"), 60, 10)) == 0


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_overlap_is_marked(family):
    """Segment 2 exactly on the context tokens whose id the question holds; nothing else moves."""
    questions = toy_corpus(60, 3)
    tokenizer, twos = load(family), 0
    plain = make_windows(questions, tokenizer, 70, 10)
    marked = make_windows(questions, tokenizer, 70, 10, mark_overlap=True)
    assert len(plain) == len(marked)
    for i in range(len(plain)):
        w, m = plain[i], marked[i]
        asked = tokenizer.encode(questions[w.question_index].question, add_special_tokens=False).ids
        expected = list(w.segment_ids)
        for t in range(*w.context_slice.indices(len(expected))):
            expected[t] = 2 if w.input_ids[t] in asked else expected[t]
        assert m.segment_ids == collate([m]).segment_ids[0].tolist() == expected, f"window {i}"
        assert (m.input_ids, m.offsets, m.answer_spans) == (w.input_ids, w.offsets, w.answer_spans)
        twos += expected.count(2)
    assert twos > 0


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_truncation_and_padding_that_come_along(family):
    """A tokenizer.json that truncates and pads gives the same windows, and is left as it was."""
    tokenizer = Tokenizer.from_str(load(family).to_str())
    tokenizer.enable_truncation(8, stride=2)
    tokenizer.enable_padding(length=200)
    before, questions = tokenizer.to_str(), toy_corpus(8, 1)
    windows = make_windows(questions, tokenizer, 70, 10)
    assert tokenizer.to_str() == before
    expected = make_windows(questions, load(family), 70, 10)
    assert len(windows) == len(expected)
    for i in range(len(expected)):
        for name in ("input_ids", "segment_ids", "offsets", "answer_spans", "label"):
            assert getattr(windows[i], name) == getattr(expected[i], name), f"window {i}, {name}"


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(3, 384), min_size=1, max_size=80), st.integers(1, 16), st.integers(0, 9)
)
def test_length_bucketed(lengths, size, seed):
    """A partition into batches of one size, seeded, with less padding than one range of lengths."""
    lengths = np.array(lengths)
    batches = length_bucketed(lengths, size, np.random.default_rng(seed))
    again = length_bucketed(lengths, size, np.random.default_rng(seed))
    assert [list(b) for b in batches] == [list(b) for b in again], "the seed does not decide"
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    sizes = sorted(map(len, batches), reverse=True)
    full = len(lengths) // size
    assert sizes[:full] == [size] * full and len(sizes) == -(-len(lengths) // size), sizes
    padding = sum(lengths[b].max() * len(b) - lengths[b].sum() for b in batches)
    pools = -(-len(lengths) // (50 * size))  # in each the sorted batches telescope
    assert padding <= pools * size * (lengths.max() - lengths.min()), padding


def test_length_bucketed_differs_by_seed():
    """Another seed: other batches in another order, also among windows of one length."""
    for lengths in (np.arange(100), np.full(100, 7)):
        orders = [length_bucketed(lengths, 8, np.random.default_rng(seed)) for seed in (0, 1)]
        assert [list(b) for b in orders[0]] != [list(b) for b in orders[1]]
    assert {frozenset(b) for b in orders[0]} != {frozenset(b) for b in orders[1]}
    first, second = (len(b) for b in length_bucketed(np.arange(9), 8, np.random.default_rng(0)))
    assert {first, second} == {8, 1}


# ---- synthetic answers and attacks -----------------------------------------------------------


@functools.cache
def corpus(name):
    """Questions to change: generated, a few real articles, or every question that is at hand."""
    if name == "toy":
        return toy_corpus(1200, 5)
    every = {"real": (9, 15, 12), "everything": (1, 1, 1)}[name]
    files = "squad2-dev.json.gz", "squad2-train-29k.json.gz", "addonesent.json.gz"
    questions = [q for file, n in zip(files, every) for q in real_questions(file, n)]
    return list({q.id: q for q in questions}.values())


CORPORA = ["toy", "real", pytest.param("everything", marks=pytest.mark.slow)]


def sentence_starts(text):
    """Offsets at which the sentences of a text begin."""
    return [0, *(match.end() for match in SENTENCE_END.finditer(text))]


def insertions(old, new):
    """Every (slot, text) at a sentence's start or the end that makes `new` out of `old`."""
    grown = len(new) - len(old)
    slots = [*sentence_starts(old), len(old)]
    return [(k, new[k : k + grown]) for k in slots if new[:k] + new[k + grown :] == old]


def assert_offsets(question):
    """Every located answer stands at its offset."""
    for a in question.answers:
        found = question.context[a.start : a.start + len(a.text)]
        assert a.start == UNLOCATED or found == a.text, f"{found!r} where {a} is: {question}"


def words_of(question):
    return question.question.strip().rstrip("? ")


def around(q):
    """What stands before and after the first gold in its sentence, final stop left out."""
    gold, bounds = q.answers[0], [*sentence_starts(q.context), len(q.context)]
    end = gold.start + len(gold.text)
    before = q.context[max(b for b in bounds if b <= gold.start) : gold.start]
    after = q.context[end : min(b for b in bounds if b >= end)]
    return before.strip(), after.strip().rstrip(".!?")


@pytest.mark.parametrize("text, starts", [
    ("One. Two! Three?", [0, 5, 10]),
    ('He left. "Why?" she asked. (It was 3.) 1066 came.', [0, 9, 27, 39]),
    ("Dr. J. Doe of St. Ives paid $1.50 e.g. to him. Yes.", [0, 47]),
    ("no end", [0]),
])  # fmt: skip
def test_sentence_starts(text, starts):
    """After stop, space and capital or number; not after initials, abbreviations, in numbers."""
    assert sentence_starts(text) == starts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CORPORA)
def test_synthetic_answers(name, kind):
    """One sentence more, both answers at their offsets, the original first, the form as named."""
    questions = corpus(name)
    pool, rng, made, forms, places = answer_pool(questions), random.Random(0), 0, set(), set()
    for q in (q for q in questions if q.answers):
        new = synthetic_answer(q, pool, rng, kind)
        if any(a.start == UNLOCATED for a in q.answers):
            assert new is None, q
        if new is None:
            continue
        made += 1
        assert_offsets(new)
        assert (new.id, new.question, new.title) == (q.id, q.question, q.title)
        *old, other = new.answers
        assert [a.text for a in old] == [a.text for a in q.answers], "originals first, unchanged"
        gold = q.answers[0]
        assert other.text in pool and other.text.casefold() not in q.context.casefold(), other
        numbers = [bool(re.search(r"\d", a.text)) for a in (gold, other)]
        assert numbers[0] == numbers[1], (gold, other)
        fits = set()  # a sentence can fit two slots where the words after both are the same
        for slot, text in insertions(q.context, new.context):
            at = other.start - slot
            moved = [a.start + len(text) * (a.start >= slot) for a in q.answers]
            if moved != [a.start for a in old] or not 0 <= at <= len(text) - len(other.text):
                continue
            before, after = text[:at].lstrip(), text[at + len(other.text) :].rstrip()
            if (before, after) == (words_of(q) + " is ", "."):
                fits.add((slot, "template"))
            if (before.strip(), after.strip().rstrip(".!?")) == around(q):
                fits.add((slot, "evidence"))
        assert fits, f"not one sentence of {kind} more than\n{q}\nis\n{new}"
        slot, form = min(fits)
        assert kind in ("mixed", *(form for _, form in fits)), f"a {form} sentence: {new}"
        places.add("first" if slot == 0 else "last" if slot == len(q.context) else "middle")
        forms.add(form)
    answerable = sum(bool(q.answers) for q in questions)
    assert made > 0.9 * answerable, f"only {made} of {answerable} answerable questions"
    assert places == {"first", "middle", "last"}
    assert forms == ({"evidence", "template"} if kind == "mixed" else {kind})


def test_no_synthetic_answer_or_attack_can_be_made():
    """None: unanswerable, not located, no other answer of the kind, no entity, no wh-word."""
    rng, pool = random.Random(0), ["Ada Abel", "Ben Berg", "Cora Cole"]
    gold, changes = Answer("Ada Abel", 0), (synthetic_answer, add_one_sentence, negate)
    q = Question("q", "Who opened Lake Zurich?", "Ada Abel opened it. It rained.", [gold])
    for change in changes:
        assert change(q, pool, rng)
        assert change(replace(q, answers=[]), pool, rng) is None
        for poor in ([], ["Ada Abel"], ["1066", "red", "seven of the lakes"]):
            assert change(q, poor, rng) is None, (change, poor)
    for lost in ([Answer("x y", UNLOCATED)], [gold, Answer("x", UNLOCATED)]):
        assert synthetic_answer(replace(q, answers=lost), pool, rng) is None
    assert add_one_sentence(replace(q, question="Who opened it?"), pool, rng) is None
    assert negate(replace(q, question="Name Lake Zurich."), pool, rng) is None
    unanswerable = [replace(q, answers=[])]
    assert [attack(unanswerable, kind) for kind in ATTACKS] == [[], []]
    assert add_synthetic_answers(unanswerable, 1.0) == unanswerable


@pytest.mark.parametrize(
    "question, gold, fake, sentence",
    [
        ("Who built the dome?", "Ada Abel", "Ben Berg", "Not Ben Berg built the dome."),
        ("In what country is it located? ", "Peru", "Chad", "In Chad is not it located."),
        ("How many people came?", "40", "51", "Not 51 people came."),
        ("When did Ada die?", "1066", "1815", "1815 did not Ada die."),
        ("the dome was built by whom?", "Ada", "Ben", "Not the dome was built by Ben."),
    ],
)
def test_negation_by_hand(question, gold, fake, sentence):
    """The fake in the place of the wh-phrase, "not" after the auxiliary or else in front."""
    q = Question("q", question, f"It was {gold}.", [Answer(gold, 7)])
    assert negate(q, [gold, fake], random.Random(0)).context == f"{q.context} {sentence}"


@functools.cache
def attacked(name, kind):
    """[(question, its attacked version)]"""
    questions = {q.id: q for q in corpus(name)}
    return [(questions[new.id], new) for new in attack(corpus(name), kind, seed=1)]


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("name", CORPORA)
def test_attacks(name, kind):
    """A sentence more at the end and nothing else: ids, questions, titles and golds stay."""
    pairs = attacked(name, kind)
    for q, new in pairs:
        assert_offsets(new)
        added = new.context.removeprefix(q.context)
        assert new.context.startswith(q.context) and re.fullmatch(r" \S.*\.", added, re.DOTALL), new
        assert replace(new, context=q.context) == q
        assert q.answers, f"an attack on an unanswerable question: {q}"
    ids = dict.fromkeys(new.id for _, new in pairs)
    answerable = [q.id for q in corpus(name) if q.answers]
    assert [i for i in answerable if i in ids] == list(ids), "order or ids changed"
    least = {"toy": 0.99, "addonesent": 0.55, "negation": 0.9}
    share = len(ids) / len(answerable)
    assert share > least.get(name, least[kind]), f"only {share:.0%} of the answerable questions"


@pytest.mark.parametrize("name", CORPORA)
def test_addonesent_asks_about_others(name):
    """The added sentence lacks a name or number of the question (but for chance, in the fake)."""
    kept, pairs = [], attacked(name, "addonesent")
    for q, new in pairs:
        added = new.context.removeprefix(q.context)
        entities = re.findall(r"(?<=\s)[A-Z][\w'’-]*|\d[\d,.]*\b", q.question)
        if all(re.search(rf"(?<![\w'’-]){re.escape(e)}(?![\w'’-])", added) for e in entities):
            kept.append((q.question, added))
    few = len(kept) < 0.005 * len(pairs)
    assert few, f"{len(kept)} of {len(pairs)} sentences keep every entity, as {kept[:3]}"


@pytest.mark.parametrize("name", CORPORA)
def test_negation_negates(name):
    """The added sentence holds "not"; its other words are the question's or the fake's."""
    pool = {tuple(text.casefold().split()) for text in answer_pool(corpus(name))}
    for q, new in attacked(name, "negation"):
        added = new.context.removeprefix(q.context)
        assert re.search(r"\bnot\b", added, re.IGNORECASE), added
        asked = {word.casefold() for word in words_of(q).split()} | {"not"}
        words = added.strip().removesuffix(".").casefold().split()
        spans = itertools.combinations(range(len(words) + 1), 2)
        fakes = [tuple(words[i:j]) for i, j in spans if {*words[:i], *words[j:]} <= asked]
        assert pool & set(fakes), f"{added!r} is not {q.question!r} with an answer of the pool"


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("name", CORPORA)
def test_no_attack_has_a_form_of_training(name, kind):
    """Answers taken out, the attack's sentence is neither training's template nor its evidence."""
    same, pool = [], set(answer_pool(corpus(name)))
    for q, new in attacked(name, kind):
        added = new.context.removeprefix(q.context).strip().removesuffix(".")
        before, after = around(q) if q.answers[0].start != UNLOCATED else ("x" * 999, "")
        fake = added.removeprefix(before).removesuffix(after).strip()
        evidence = added.startswith(before) and added.endswith(after) and fake in pool
        if evidence or added.startswith(words_of(q) + " is "):
            same.append((q.question, q.answers[0].text, added))
    assert not same, f"{len(same)} attacks, as {same[:3]}"


@pytest.mark.parametrize("name", CORPORA)
def test_the_seed_decides(name):
    """The same seed changes the same text in the same way, another seed otherwise."""
    questions = corpus(name)[:800]
    for change in (
        *(functools.partial(attack, questions, kind) for kind in ATTACKS),
        *(functools.partial(add_synthetic_answers, questions, 0.5, kind=kind) for kind in KINDS),
    ):
        assert change(seed=3) == change(seed=3) != change(seed=4), change
    assert attack(questions, "information-seeking") == rematch(questions)


@pytest.mark.parametrize("name", CORPORA)
def test_add_synthetic_answers(name):
    """A share of the answerable questions gets one, in place; all others are untouched."""
    questions = corpus(name)
    answerable = [q for q in questions if q.answers]
    assert add_synthetic_answers(questions, 0.0) == questions
    for share in (0.3, 1.0):
        new = add_synthetic_answers(questions, share, seed=2)
        assert [q.id for q in new] == [q.id for q in questions]
        changed = [n for n, q in zip(new, questions) if n != q]
        assert all(len(n.answers) >= 2 for n in changed)
        low = share - 0.1 if share == 1 else share - 0.05
        assert low < len(changed) / len(answerable) <= share + 0.05
        assert {n.id for n in changed} <= {q.id for q in answerable}


@pytest.mark.parametrize("name", CORPORA)
def test_changed_questions_are_squad_files(name, tmp_path):
    """Written as SQuAD JSON and read back they are equal."""
    questions = [q for q in corpus(name) if all(a.start != UNLOCATED for a in q.answers)]
    changed = {kind: add_synthetic_answers(questions, 1.0, kind=kind) for kind in KINDS}
    changed |= {kind: attack(questions, kind) for kind in [*ATTACKS, "information-seeking"]}
    for kind, new in changed.items():
        write_questions(new, tmp_path / f"{kind}.json.gz")
        assert read_questions(tmp_path / f"{kind}.json.gz") == new, kind


@pytest.mark.parametrize("name", CORPORA)
def test_rematch(name):
    """Unanswerable, in another paragraph of the article without any gold's text, under a new id."""
    questions = corpus(name)
    moved = rematch(questions)
    old = {q.id: q for q in questions}
    articles = {(q.title, q.context) for q in questions}
    for new in moved:
        q = old[next(key for key in (new.id.rsplit("-", k)[0] for k in (1, 2)) if key in old)]
        assert (new.question, new.title, new.answers) == (q.question, q.title, []), new
        assert (new.title, new.context) in articles and new.context != q.context, new
        held = [a.text for a in q.answers if a.text.casefold() in new.context.casefold()]
        assert q.answers and not held, f"{held} in {new}"
    ids = [new.id for new in moved]
    assert len(set(ids)) == len(ids) and not set(ids) & set(old)
    assert len(ids) > 0.8 * sum(bool(q.answers) for q in questions)


def test_rematch_by_hand():
    """The rarest word decides; not a paragraph with the answer, of another article, or unlike."""
    contexts = {
        "own": "Ada opened the lake cafe of Zurich: that is all.",
        "holds the answer": "ZURICH is the home of a lake cafe.",
        "less": "It is the cafe of the mill.",
        "best": "It is the cafe of a lake near Bern.",
        "words of all": "It is Zeno, the owner of the mill.",
    }
    gold = Answer("Zurich", contexts["own"].index("Zurich"))
    asked = Question("q", "Where is the lake cafe of Ada?", contexts["own"], [gold], "T")
    others = [Question(k, "Why?", text, [], "T") for k, text in contexts.items() if k != "own"]
    foreign = Question("f", "Why?", "The lake cafe of Ada, the lake cafe of Ada.", [], "U")
    (moved,) = rematch([asked, *others, foreign])
    assert moved == Question(moved.id, asked.question, contexts["best"], [], "T")
    rare = replace(asked, question="Does Zeno know the lake cafe?")  # one rare word, two frequent
    assert rematch([rare, *others])[0].context == contexts["words of all"]
    lost = replace(asked, answers=[Answer("Bern or so", UNLOCATED)])  # its own is the most similar
    assert rematch([lost, *others])[0].context != contexts["own"]
    unlike = Question("u", "Why?", "Nothing similar here.", [], "T")
    assert rematch([asked, unlike, foreign]) == []


# ---- the toy corpus --------------------------------------------------------------------------

STATEMENTS = {  # relation: forms, {p} the person and {a} the answer
    "born": ["{p} was born in {a}", "{a} was the home town of {p}"],
    "studied": ["{p} studied in {a}", "{p} went to school in {a}"],
    "founded": ["{p} founded {a}", "{a} was set up by {p}"],
    "job": ["{p} worked as a {a}", "the job of {p} was {a}"],
    "teacher": ["{p} was taught by {a}", "{a} was the teacher of {p}"],
    "died": ["{p} died in {a}", "in {a} death came to {p}"],
}
ASKED = {
    "Where was {p} born?": "born",
    "In which city did {p} study?": "studied",
    "Which company was founded by {p}?": "founded",
    "What was the job of {p}?": "job",
    "Who was the teacher of {p}?": "teacher",
    "When did {p} die?": "died",
}


def understand(text, forms):
    """(form, person, answer or None) of the one form that the text has."""
    for form in forms:
        pattern = form.replace("?", "[?]").format(p=r"(?P<p>\w+ \w+)", a=r"(?P<a>\w+( \w+)?)")
        if match := re.fullmatch(pattern, text, re.IGNORECASE):
            return form, match["p"], match.groupdict().get("a")
    pytest.fail(f"not understood: {text!r}")


def facts_of(context):
    """{(person, relation): answer} that the context states."""
    forms = {form: relation for relation, forms in STATEMENTS.items() for form in forms}
    facts = {}
    for sentence in context.removesuffix(".").split(". "):
        form, person, answer = understand(sentence, forms)
        assert (person, forms[form]) not in facts, f"stated twice: {sentence!r} in {context!r}"
        facts[person, forms[form]] = answer
    return facts


def test_toy_corpus_states_what_it_answers():
    """The gold is what the context states of that person; of nobody an unanswerable one asks."""
    questions = toy_corpus(1500, 7)
    assert 1500 <= len(questions) < 1600 and len({q.id for q in questions}) == len(questions)
    for q in questions:
        assert_offsets(q)
        facts = facts_of(q.context)
        form, person, _ = understand(q.question, ASKED)
        stated = facts.get((person, ASKED[form]))
        assert [a.text for a in q.answers] == ([stated] if stated else []), q
        assert ASKED[form] in {relation for _, relation in facts}, f"stated of nobody: {q}"
    assert 0.4 < sum(bool(q.answers) for q in questions) / len(questions) < 0.6


def test_rematched_toy_questions_are_unanswerable():
    """What an information-seeking toy question asks is not stated in its new context."""
    questions = toy_corpus(1500, 7, "information-seeking")
    assert len(questions) > 400 and not any(q.answers for q in questions)
    for q in questions:
        form, person, _ = understand(q.question, ASKED)
        assert (person, ASKED[form]) not in facts_of(q.context), q


def test_toy_corpus_is_seeded_and_has_its_kinds():
    """The seed decides; the kinds are the functions of the same name; TOY's names can be read."""
    plain = toy_corpus(200, 3)
    assert plain == toy_corpus(200, 3) != toy_corpus(200, 4)
    for kind in [*ATTACKS, "information-seeking"]:
        assert toy_corpus(200, 3, kind) == attack(plain, kind, 3) != [], kind
    for name, arguments in TOY.items():
        assert read_questions(name) == toy_corpus(*arguments), name
    assert {kind for _, _, kind in TOY.values()} == {"plain", "information-seeking", *ATTACKS}


def test_toy_train_and_dev_share_nothing():
    """No question about the same context in both, and no context either."""
    train = read_questions("toy-train")
    contexts, asked = {q.context for q in train}, {(q.question, q.context) for q in train}
    for name in set(TOY) - {"toy-train"}:
        questions = read_questions(name)
        assert not asked & {(q.question, q.context) for q in questions}, name
        assert not contexts & {q.context for q in questions}, name
