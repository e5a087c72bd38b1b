"""Files, windows, synthetic answers, attacks and the toy corpus, against something else.

EQA_DATA names a folder with real data (default ../shared/data) and EQA_MINILM one with a real
tokenizer; without them those cases are skipped.
"""

import functools
import gzip
import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors

import data
from data import UNLOCATED, Answer, InputError, Question, make_windows, read_questions, toy_corpus

ROOT = Path(__file__).parent.parent
REAL = Path(ROOT, os.environ.get("EQA_DATA", "../shared/data"), "squad2-dev.json.gz")
MINILM = os.environ.get("EQA_MINILM")


def load(family):
    """A tokenizer of fixtures/, or that of EQA_MINILM, as it is in its file."""
    folder = MINILM if family == "minilm" else Path(__file__).parent / "fixtures" / family
    return Tokenizer.from_file(str(Path(folder, "tokenizer.json")))


# --- Files --------------------------------------------------------------------------------------

CAFE, LAKE = "Ada Lee opened the café: Ada and 😀.", 'In Zürich,\n"by the lake"\u2028.'
THREE = [
    Question("q1", "Who opened it?", CAFE, [Answer("Ada Lee", 0), Answer("Ada", 25)], "Lakes"),
    Question("q2", "Who closed the café?", CAFE, [], "Lakes"),
    Question("q3", "Wo?", LAKE, [Answer('"by the lake"', 11)], "东京"),
]


def nested(more):
    """SQuAD's form of THREE: two articles; `more` of a question is added to it."""
    qas = []
    for q in THREE:
        answers = [{"text": a.text, "answer_start": a.start} for a in q.answers]
        qas.append({"id": q.id, "question": q.question, "answers": answers} | more(q))
    lakes = {"title": "Lakes", "paragraphs": [{"context": CAFE, "qas": qas[:2]}]}
    other = {"title": "东京", "paragraphs": [{"context": LAKE, "qas": qas[2:]}]}
    return {"version": "v", "data": [lakes, other]}


def flat(q, kind=int):
    """The Hub's form of one question; `kind` is the type of its offsets."""
    answers = golds([a.text for a in q.answers], [kind(a.start) for a in q.answers])
    row = {"id": q.id, "title": q.title, "context": q.context, "question": q.question}
    return row | {"answers": answers}


def golds(texts, starts):
    return {"text": texts, "answer_start": starts}


def lines(rows, **how):
    return "\n".join(json.dumps(row, **how) for row in rows)


V2 = nested(lambda q: {"is_impossible": not q.answers, "plausible_answers": [{"text": "Ada"}]})
FORMATS = {
    "v1.1": json.dumps(nested(lambda q: {})),
    "v2.0": json.dumps(V2),
    "v2.0 indented, with a byte order mark": "\ufeff" + json.dumps(V2, indent=1),
    "flat": json.dumps({"data": [flat(q) for q in THREE]}, ensure_ascii=False),
    "flat list, offsets as text": json.dumps([flat(q, str) for q in THREE]),
    "flat list, offsets as pandas writes them": json.dumps([flat(q, float) for q in THREE]),
    "JSON Lines": lines(map(flat, THREE)),
    "JSON Lines, not escaped": lines(map(flat, THREE), ensure_ascii=False),
    "JSON Lines, from Windows": lines(map(flat, THREE)).replace("\n", "\r\n\r\n") + "\r\n",
}


def read(tmp_path, content):
    """What read_questions makes of a value, written as JSON, or of bytes or text as they are."""
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    (tmp_path / "x.json").write_bytes(content)
    return read_questions(tmp_path / "x.json")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_reads_the_same(form, tmp_path, capsys):
    """The same three questions, their titles and answers in order, gzipped or not; no remarks."""
    content = FORMATS[form].encode()
    assert read(tmp_path, content) == read(tmp_path, gzip.compress(content)) == THREE
    assert read_questions(str(tmp_path / "x.json")) == THREE
    assert capsys.readouterr() == ("", "")


ROW = flat(Question("id-7", "Where?", "a b c", [Answer("b", 2)]))  # one that can be read
PLACES = [  # context, text, offset in the file, offset
    ("a cat, a cat", "cat", 9, 9),  # at its offset, though the text stands elsewhere too
    ("a cat, a dog", "dog", 0, 9),  # once, elsewhere
    ("a cat, a dog", "dog", 400, 9),
    ("a cat, a cat", "cat", 0, UNLOCATED),  # twice
    ("a cat", "Cat", 2, UNLOCATED),  # nowhere
    ("a cat", "cat", -3, 2),  # a negative offset does not count from the end
    ("😀 cat", "cat", 3, 2),  # offsets count characters, not UTF-16 halves
    ("One\r\nTwo\r\nMay", "May", 8, 10),  # counted before line ends were changed
    ("莫拉桥于一九三一年五月建成", "一九三一年五月", 4, 4),
]


@pytest.mark.parametrize("context, text, start, expected", PLACES)
def test_an_answer_must_occur_just_once(context, text, start, expected, tmp_path, capsys):
    """Or stand at its offset. One that does neither is kept, for scoring by text, and its question is named."""
    row = ROW | {"context": context, "answers": golds([text], [start])}
    assert read(tmp_path, [row])[0].answers == [Answer(text, expected)]
    remark = f"{tmp_path / 'x.json'}: 1 have an answer out of place: ['id-7']\n"
    assert capsys.readouterr().err == (remark if expected == UNLOCATED else "")


EMPTY = {"text": "", "answer_start": -1}
ODD = {  # what is odd of a question: its changes, what is read
    "impossible, an empty text": ({"is_impossible": True, "answers": golds([""], [0])}, []),
    "impossible, one in a list": ({"is_impossible": True, "answers": [EMPTY]}, []),
    "impossible, answers null": ({"is_impossible": True, "answers": None}, []),
    "nothing said, an empty text": ({"answers": golds([" "], [0])}, []),
    "is_impossible null": ({"answers": [], "is_impossible": None}, []),
    "25,000 blanks": ({"question": " " * 25_000 + "Where? "}, [Answer("b", 2)]),
    "more keys": ({"id": 7, "document_id": 3, "answer_end": 3}, [Answer("b", 2)]),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_question_is_read(case, tmp_path):
    """SQuAD 2.0 has one that begins with 25,000 blanks; annotation tools write numbers for ids."""
    changes, answers = ODD[case]
    expected = Question(str(changes.get("id", "id-7")), "Where?", "a b c", answers)
    assert read(tmp_path, [ROW | changes]) == [expected]
    articles = [{"paragraphs": [{"context": "a b c", "qas": [ROW | changes]}]}]
    assert read(tmp_path, articles) == read(tmp_path, articles[0]["paragraphs"]) == [expected]


MRQA = {"context": "a b c", "qas": [{"qid": "q1", "question": "?", "answers": ["b"]}]}
GUID = {"guid": "k-1"} | {key: value for key, value in ROW.items() if key != "id"}
BROKEN = {  # what is broken: the file, what its sentence must say
    "nothing": ("", "line 1"),
    "no questions": ({"data": []}, "no questions"),
    "not UTF-8": ("é".encode("latin-1"), "utf-8"),
    "half a gzip": (gzip.compress(b"[]" * 99)[:-9], "end-of-stream"),
    "JSON broken in its line 9": (json.dumps([ROW], indent=1).replace('"b"', "b"), "line 9"),
    "Parquet": (b"PAR1\x15\x04\xff", "this is Parquet.*SQuAD JSON.*to_json"),
    "a list of lists": ([[1]], "list"),
    "an id twice": ([ROW, ROW | {"id": "good"}, ROW], "question id-7: its id occurs twice"),
    "a number and a text as id": ([ROW | {"id": 1}, ROW | {"id": "1"}], "1: its id occurs twice"),
    "no id, but a guid": ([GUID], "question 1: id: missing.* guid"),
    "an article's id": ([{"id": "a", "paragraphs": [GUID]}], "question 1: id: missing"),
    "columns": ({k: {"0": v} for k, v in ROW.items()}, "id, question, context: missing"),
    "JSON Lines cut in line 5": (lines(map(flat, THREE)).replace("\n", "\n\n")[:-9], "line 5"),
    "a bracket too many, in line 4": (json.dumps([ROW], indent=None) + "\n\n\n]", "line 4"),
    "qas are text": ([{"paragraphs": [{"context": "a", "qas": ["q1"]}]}], "qas .*list of objects"),
    "paragraphs are text": ({"data": [{"paragraphs": ["a b c"]}]}, "paragraphs .*list of objects"),
    "data by id": ({"data": {"id-7": ROW}}, "data .*list of objects"),
    "MRQA": (lines([{"header": {}}, MRQA]), "id, question, context.*: missing.*header"),
}
ONE_TEXT, TWO = {"text": "b", "answer_start": 2}, golds(["b", "c"], [2])
CHANGES = {  # the same of changes of a row
    "no answers": ({"answers": None}, "answers: missing"),
    "answers are text": ({"answers": "{'text': array(['b'])}"}, "answers: .*wrong kind"),
    "answers hold one text": ({"answers": ONE_TEXT}, "one text and not a list"),
    "fewer offsets than texts": ({"answers": TWO}, "answer_start of 'c'"),
    "an offset of 2.5": ({"answers": golds(["b"], [2.5])}, "2.5"),
    "no offset": ({"answers": [{"text": "b"}]}, "answer_start"),
    "answers are texts": ({"answers": ["b"]}, "answers .*list of objects"),
    "a text is null": ({"answers": [{"text": None, "answer_start": 2}]}, "text .*None"),
    "half a letter in the context": ({"context": "a b \ud83d"}, "ud83d"),
    "half a letter in the question": ({"question": "b\ud83d?"}, "ud83d"),
    "is_impossible is text": ({"is_impossible": "False"}, "is_impossible: .*wrong kind"),
    "impossible with an answer": ({"is_impossible": True}, "is_impossible is True, .*1 answers"),
    "possible without": ({"is_impossible": False, "answers": []}, "is False, .*0 answers"),
}
for case, (changes, sentence) in CHANGES.items():
    BROKEN[case] = [ROW | {"id": "good"}, ROW | changes], f"question id-7: .*{sentence}"


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_in_one_sentence_that_names_it(case, tmp_path):
    content, sentence = BROKEN[case]
    with pytest.raises(InputError, match=sentence) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.json'}: ") and "\n" not in message, message
    assert "good" not in message, f"names a question that can be read: {message}"


PYTHON = r"NoneType|indices must|invalid literal|object|iterable|hashable|argument|(: '\w+'$)"
VALUES = [None, True, 5, 2.5, "x", "", [], ["b"], [None], [[]], {}, {"text": "b"}, {"0": 2}]


def places(value):
    """(what holds it, key) of all that a JSON value holds."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


@pytest.mark.parametrize("form", ["v2.0", "flat"])
def test_whatever_stands_in_a_field_no_words_of_python_are_shown(form, tmp_path):
    """Each field in turn holds each kind of value: it is read, or refused in words of ours."""
    whole, wrong, read_ones = json.loads(FORMATS[form]), [], 0
    for held, key in list(places(whole)):
        right = held[key]
        for value in VALUES:
            held[key] = value
            try:
                read(tmp_path, whole)
                read_ones += 1
            except InputError as error:
                message = str(error).replace("of objects", "")
                if re.search(PYTHON, message):
                    wrong.append((key, value, message.split("x.json")[1]))
        held[key] = right
    assert read_ones > 10
    assert not wrong, "\n".join(map(str, wrong))


# --- Windows ------------------------------------------------------------------------------------

JOINERS = "\u200c\u200d" + "".join(map(chr, range(0xE0020, 0xE0080)))


def plain(tokenizer):
    """A copy that neither cuts, pads nor draws."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if hasattr(tokenizer.model, "dropout"):
        tokenizer.model.dropout = None
    return tokenizer


def pair_truncation(questions, tokenizer, max_length, stride):
    """tokenizers' own windows: [(question, ids, segments, which context tokens, offsets of all)]."""
    tokenizer = plain(tokenizer)
    tokenizer.enable_truncation(max_length, stride=stride, strategy="only_second")
    pairs, found = [(q.question.strip(), q.context) for q in questions], []
    for question, whole in zip(questions, tokenizer.encode_batch(pairs)):
        offsets = []
        for part in (whole, *whole.overflowing):
            context = [pair for pair, n in zip(part.offsets, part.sequence_ids) if n == 1]
            first = len(offsets) - stride if offsets else 0
            offsets[first:] = context
            found.append((question, part.ids, part.type_ids, slice(first, len(offsets)), offsets))
    return found


def with_lost_letters(offsets, text):
    """A token gets what the tokenizer leaves to none between it and the end of its word."""
    held, grown = {k for start, end in offsets for k in range(start, end)}, []
    letters = [c != " " and c.isprintable() or c in JOINERS for c in text]
    for start, end in offsets:
        while end < len(text) and end not in held and letters[end]:
            end += 1
        grown.append((start, end))
    return grown


def cover(offsets, answer):
    """First and last of the tokens that have a part in the answer; -1, -1 if there are none."""
    start, end = answer.start, answer.start + len(answer.text)
    inside = [t for t, (s, e) in enumerate(offsets) if s < end and e > start and start != UNLOCATED]
    return (inside[0], inside[-1]) if inside else (-1, -1)


def check_windows(questions, family, max_length, stride):
    """Windows are pair truncation; golds, labels and texts are those of the smallest covers."""
    tokenizer = load(family)
    windows = make_windows(questions, tokenizer, max_length, stride)
    marked = make_windows(questions, tokenizer, max_length, stride, mark_overlap=True)
    theirs = pair_truncation(questions, tokenizer, max_length, stride)
    assert len(windows) == len(marked) == len(theirs)
    batch = data.collate(windows)
    for b, (q, ids, segments, part, offsets) in enumerate(theirs):
        window, offsets = windows[b], with_lost_letters(offsets, q.context)
        at = window.context.start - part.start  # from a token's number to its position
        assert (window.question, window.context) == (q, slice(part.start + at, part.stop + at))
        assert window.input_ids.tolist() == ids, q
        assert window.segment_ids.tolist() == segments, q
        assert window.offsets.tolist() == [[*pair] for pair in offsets[part]], q
        T, golds = batch.mask.shape[1], []
        assert T % 16 == 0 and T - 16 < max(len(ids) for _, ids, *_ in theirs) <= T, T
        labels, positions = np.zeros((2, T)), [0, 0]
        for k, (start, end) in enumerate(cover(offsets, answer) for answer in q.answers):
            inside = part.start <= start and end < part.stop
            golds.append([start + at, end + at] if inside else [-1, -1])
            if inside:
                labels[[0, 1], golds[k]] = 1
                text = q.context[offsets[start][0] : offsets[end][1]]
                assert window.text(*golds[k]) == text.strip(), (q, q.answers[k])
        assert window.golds.tolist() == golds, q
        assert batch.labels[:, b].tolist() == labels.tolist(), q
        if golds and golds[0][0] >= 0:  # the first listed gold, and no other
            positions = golds[0]
        assert batch.positions[:, b].tolist() == positions, q
        padding = [0] * (T - len(ids))
        assert batch.input_ids[b].tolist() == ids + padding
        assert batch.segment_ids[b].tolist() == segments + padding
        assert batch.mask[b].tolist() == [True] * len(ids) + padding
        assert batch.context_mask[b].nonzero()[:, 0].tolist() == [*range(T)][window.context]
        asked = plain(tokenizer).encode(q.question.strip(), add_special_tokens=False).ids
        twos = [t in range(T)[window.context] and ids[t] in asked for t in range(len(ids))]
        expected = [2 if two else segment for two, segment in zip(twos, segments)]
        assert marked[b].segment_ids.tolist() == expected, q
    return windows


@pytest.mark.parametrize("family", ["bert", "roberta", "minilm"])
@pytest.mark.parametrize("shape", [(384, 128), (64, 10)])
def test_windows_are_pair_truncation_and_golds_are_read_back(family, shape):
    """The tokenizers of fixtures/bert and of MiniLM bring truncation and padding along."""
    if family == "minilm" and not (MINILM and REAL.exists()):
        pytest.skip(f"EQA_MINILM is not set, or {REAL} (EQA_DATA) is not there")
    exact, questions = [], toy_corpus(200, 3) if family != "minilm" else read_questions(REAL)[::40]
    for window in check_windows(questions, family, *shape):
        pairs = zip(window.golds.tolist(), window.question.answers)
        exact += [window.text(*gold) == answer.text for gold, answer in pairs if gold[0] >= 0]
    assert len(exact) > 90 and np.mean(exact) > 0.98, f"{np.mean(exact):.1%} of {len(exact)}"


FLAG = "\U0001f3f4\U000e0067\U000e007f"  # of a picture and letters
JOINED = "\u0d28\u0d4d\u200d"  # the last is a joiner
COVERS = [  # tokenizer, context, answer, text of its span (None: it has no token), its tokens
    ("bert", "he opened the lake", "open", "opened", 1),  # as "Japan" in "Japanese"
    ("bert", "by her ownership of", "ship", "ship", 1),
    ("bert", "the cafe\u0301 is near", "cafe\u0301", "cafe\u0301", 1),  # an accent is no token
    ("bert", "by Zo\u0308", "Zo\u0308", "Zo\u0308", 2),
    ("bert", "the \u200b lake", "\u200b", None, 0),  # nor is a zero-width character
    ("bert", f"is {JOINED}, it", JOINED, JOINED, 1),
    ("bert", f"near {FLAG}.", FLAG, FLAG, 1),
    ("roberta", f"near {FLAG}.", FLAG, FLAG, 12),
    ("bert", "near 東京 it is", "京", "京", 1),
    ("roberta", "near \U0001f600!", "\U0001f600", "\U0001f600", 4),  # one character, 4 bytes
    ("roberta", "the  ZZ", " ZZ", "ZZ", 3),  # the spaces are tokens of their own
    ("dropout", "opened the lake, opened", "opened the lake", "opened the lake", 9),
    ("robbert", "Elin was it", "Elin", "Elin", 4),
    ("robbert", "(a) Elin", "Elin", "Elin", 4),
    ("robbert", "it was  (a) Elin.", "(a) Elin", "(a) Elin", 10),
]


@pytest.mark.parametrize("family, context, answer, text, tokens", COVERS)
def test_a_gold_is_the_smallest_cover_of_its_text(family, context, answer, text, tokens):
    """RobBERT's tokenizer puts a blank before each word, and takes one off its offsets."""
    tokenizer = load(family if family in ("bert", "roberta") else "roberta")
    if family == "dropout":  # of byte pairs, at random
        tokenizer.model.dropout = 0.5
    if family == "robbert":
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=True)
        parts = [pre_tokenizers.Whitespace(), byte_level, pre_tokenizers.Punctuation()]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        trimming = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
        tokenizer.post_processor = trimming
    question = Question("q", "who?", context, [Answer(answer, context.index(answer))])
    (window,) = make_windows([question], tokenizer, 60, 10)
    ((start, end),) = window.golds.tolist()
    if text is None:
        assert (start, end) == (-1, -1)
    else:
        assert (window.text(start, end), end - start + 1) == (text, tokens)
    assert window.input_ids.tolist() == plain(tokenizer).encode("who?", context).ids


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("stride", [0, 5])
def test_a_question_that_leaves_no_room_for_its_context_is_refused_by_name(family, stride):
    """Where fewer than stride + 1 context tokens fit; one token more is enough."""
    questions = [Question(f"id-{k}", "who?", "the lake was near" * 3, []) for k in range(3)]
    questions[1] = replace(questions[1], question="who opened the lake cafe near it?" * 3)
    tokenizer = load(family)
    room = make_windows(questions[1:2], tokenizer, 500, stride)[0].context.start + 1
    check_windows(questions, family, room + stride + 1, stride)
    for max_length in (room + stride, room - 9):
        with pytest.raises(InputError, match="question id-1: no room"):
            make_windows(questions, tokenizer, max_length, stride)


# --- Synthetic answers and attacks --------------------------------------------------------------

ALPHABET = [a + b for a in "abcd" for b in "xyz"]


def asked(question, context, *golds):
    """A question whose golds stand where they first occur."""
    answers = [Answer(gold, context.index(gold)) for gold in golds]
    return Question("q", question, context, answers, "T")


def pool_of(question, *others, names=("Bo", "Ben Cole", "8")):
    """The others are of all types of the question's answer; the names are for names inside."""
    kinds = data.answer_types(question.question, question.answers[0].text)
    pool = data.answer_pool([asked("Whatever?", f"it is {name} then", name) for name in names])
    return pool | dict.fromkeys(kinds, list(others))


def tries(make, *arguments):
    """What a function of these arguments and of a random generator makes with 40 seeds."""
    return [make(*arguments, random.Random(seed)) for seed in range(40)]


def test_sentences_begin_after_a_stop_and_not_after_an_abbreviation():
    text = 'No "Why?" of St. Ives paid $1.50 e.g. to him. Yes! So'
    assert data.sentence_bounds(text) == [0, 46, 51, 53]


def test_an_ending_shapes_a_word_after_three_letters_or_more():
    shapes = {"bus": "word", "cats": "-s", "going": "word", "boring": "-ing"}
    assert {word: data.word_shape(word) for word in shapes} == shapes


OTHERS = [  # questions and answers that others may be exchanged for
    ("In what city is it?", "Bern"),
    ("Which city has one?", "Oslo"),
    ("Who came?", "Ben Cole"),
    ("who was he?", "Cora Hale"),
    ("Which American instrument do they make?", "banjo"),
    ("What colour is it?", "green"),
    ("How many are there?", "31"),
    ("When was that?", "1912"),
    ("Where is it?", "in Peru"),
]
EXCHANGED = [  # question, answer, what it may be exchanged for
    ("What city did Ada see?", "Rome", {"Bern", "Oslo"}),
    ("The lake is in which city?", "Rome", {"Bern", "Oslo"}),
    ("Who opened it?", "Ada Lee", {"Ben Cole", "Cora Hale"}),
    ("What instrument did she teach?", "piano", {"banjo"}),
    ("Of what colour is the lake?", "blue", {"green"}),
    ("How many boats came?", "12", {"31"}),
    ("When did it open?", "1874", {"1912"}),
    ("Where did she go?", "in Rome", {"in Peru"}),
    ("Why did she go?", "because it was hot and near", {None}),
]


@pytest.mark.parametrize("question, gold, expected", EXCHANGED)
def test_an_answer_is_exchanged_for_one_asked_for_by_the_same_words(question, gold, expected):
    """The head of the wh-phrase and the form are the same; not for what its context holds."""
    pool = data.answer_pool([asked(q, f"It is {other}.", other) for q, other in OTHERS])
    q = asked(question, f"It is {gold}.", gold)
    assert set(tries(data.another_answer, q, pool)) == expected
    first, *_ = sorted(expected, key=str)
    held = replace(q, context=f"It is {gold}, or {str(first).upper()}.")
    assert not {first, gold} & set(tries(data.another_answer, held, pool)) - {None}


POOLED = [  # context, gold, whether it is drawn from
    ("It was a mill.", "mill", True),
    ("It was built by Ada Lee.", "Ada Lee", True),
    ("The mill burnt.", "The mill", False),  # its capital may be the sentence's
    ('It rained. "Rome" was it.', "Rome", False),
    ("It rained! (Rome", "Rome", False),
    ("Is it? Rome.", "Rome", False),
    ("It was not a mill.", "not a mill", False),
    ("It was nothing.", "nothing", True),
    ("It was Ada's mill.", "Ada's", False),
    ("It was Ada’s mill.", "Ada’s", False),
    ("It was the Joneses’ mill.", "Joneses", True),
    ("It was a mill, then.", "mill,", False),
    ("It grew by 7%.", "7%", True),
]


@pytest.mark.parametrize("context, gold, kept", POOLED)
def test_the_pool_has_what_can_stand_inside_any_sentence(context, gold, kept):
    pool = data.answer_pool([asked("What was it?", context, gold)])
    assert {text for texts in pool.values() for text in texts} == ({gold} if kept else set())


def test_the_pool_has_first_golds_once_a_type_under_all_their_types():
    mill = asked("What was it?", "it was a mill", "mill", "a mill")
    lakes = [asked("Which lake was it?", f"it was {x}", x) for x in ("Zug", "Ulm", "Zug")]
    pool = data.answer_pool([mill, *lakes, replace(mill, answers=[]), replace(mill, id="again")])
    for q, texts in ((mill, ["mill"]), (lakes[0], ["Zug", "Ulm"])):
        for kind in data.answer_types(q.question, q.answers[0].text):
            assert pool[kind] == texts, kind
    assert {text for texts in pool.values() for text in texts} == {"mill", "Zug", "Ulm"}


def synthetic(question, pool, kind):
    """What 40 seeds make of a question: {context: the text of the last answer}."""
    made = [data.synthetic_answer(question, pool, random.Random(k), kind) for k in range(40)]
    for new in made:
        assert all(new.context.startswith(a.text, a.start) for a in new.answers), new
        assert [a.text for a in new.answers[:-1]] == [a.text for a in question.answers]
    return {new.context: new.answers[-1].text for new in made}


def test_the_sentence_goes_to_any_slot_and_both_answers_are_gold():
    question = asked("Who opened it? ", "Ada Lee opened it. It rained.", "Ada Lee", "Lee")
    pool, expected = pool_of(question, "Ben Cole", "Ada Lee"), {}
    first, last = "Ada Lee opened it.", "It rained."
    made = {"evidence": "Ben Cole opened it.", "template": "Who opened it is Ben Cole."}
    for kind, new in made.items():
        orders = [new, first, last], [first, new, last], [first, last, new]
        expected[kind] = {" ".join(order) for order in orders}
    expected["mixed"] = expected["evidence"] | expected["template"]
    for kind in expected:
        assert synthetic(question, pool, kind) == dict.fromkeys(expected[kind], "Ben Cole")


SENTENCES = [  # question, context, golds, another answer, the sentence with it
    ("Where?", "He saw the Ad Sea. It rained.", ["Ad Sea"], "the Alps", "He saw the Alps."),
    ("What?", "The mill burnt. It rained.", ["The mill"], "a lake", "A lake burnt."),
    ("Where?", "It rained. He was in Rome", ["Rome"], "Oslo", "He was in Oslo."),
    ("What?", 'He said "Go!" It rained.', ['"Go!"'], '"No!"', 'He said "No!"'),
    ("Where?", "It rained. He, in 3. Rome. So", ["3. Rome"], "Oslo", "He, in Oslo."),
    # An evidence sentence that would still hold a gold: the template.
    ("Where?", "In Rome, rome is big. It rained.", ["Rome"], "Oslo", "Where is Oslo."),
    ("Who?", "Lee, or Ada Lee, came. So", ["Ada Lee", "Lee"], "Ben Bo", "Who is Ben Bo."),
    # A gold that holds a bound stays whole.
    ("What?", "He said. It rained. So it did.", ["said. It rained. So"], "left", "He left it did."),
]


@pytest.mark.parametrize("question, context, golds, other, sentence", SENTENCES)
def test_the_sentence_by_hand(question, context, golds, other, sentence):
    """One article, a capital first, a stop at the end, no gold left in it."""
    q = asked(question, context, *golds)
    found = synthetic(q, pool_of(q, other), "evidence")
    assert sentence in {new.replace(context, "").strip() for new in found}, found


DISTRACTED = [  # question, sentence of the gold, which is Oslo, sentences with Rome that are added
    ("Is Ada Lee?", "Ada Lee was in Oslo.", ["Ada Lee was not in Rome.", "Ben Cole was in Rome."]),
    ("Where did Ada Lee go?", "So Ada Lee went to Oslo.", ["So Ben Cole went to Rome."]),
    ("Where?", "it was notable for Oslo.", ["it was not notable for Rome."]),
    ("Where?", "It is, as it was, at Oslo.", []),  # the auxiliary is of another clause
    ("Where?", "It is: here, Oslo.", []),
    ("Where?", "It was not at Oslo.", []),
    ("Where?", "It was no lake of Oslo.", []),
    ("Where?", "It isn't at Oslo.", []),
    ("Where?", "It can't be at Oslo.", []),
    *[("Where?", f"{word} was in Oslo.", []) for word in "No Never None Nobody Nothing".split()],
    ("Where?", "it is Oslo, yes Oslo.", []),  # it names the gold
    ("Where?", "it rained in Oslo.", []),  # nothing to change
]


@pytest.mark.parametrize("question, sentence, expected", DISTRACTED)
def test_a_distractor_is_denied_or_about_others_and_no_gold(question, sentence, expected):
    q, found = asked(question, f"{sentence} Then it rained.", "Oslo"), set()
    for new in filter(None, tries(data.distractor, q, pool_of(q, "Rome"))):
        (answer,) = new.answers
        assert answer.text == "Oslo" and new.context.startswith("Oslo", answer.start), new
        found.add(new.context.replace(sentence, "").replace("Then it rained.", "").strip())
    assert found == set(expected)
    assert set(tries(data.distractor, q, pool_of(q))) == {None}, "there is no other answer"


NAMES = [  # question, text, the text with other names: Bo, Ben Cole and 8
    ("When did Ada Lee come?", "Then Ada Lee came.", "Then Ben Cole came."),
    ("When did Ada Lee come?", "Ada Lee came.", "Ben Cole came."),  # it opens the text
    ("Was Ada the one?", "Was Ada there?", "Was Bo there?"),
    ("Ada came when?", "Then Ada came.", "Then Ada came."),  # the first word has a capital anyway
    ("Ada came when Ada did?", "Ada came.", "Bo came."),  # but it is elsewhere as well
    ("When did she come?", "Then Ada came.", "Then Ada came."),
    ("When did Ann come?", "Then Anna came.", "Then Anna came."),
    ("What did 12 see?", "It was 2.", "It was 2."),
    ("What did 2 see?", "It was 12, or 2.", "It was 12, or 8."),
    ("What did Ada Lee see?", "Mona Ada Lee saw it.", "Mona Ben Cole saw it."),
    ("Did Ada see Ada Lee?", "It was Ada Lee.", "It was Ben Cole."),  # not "Bo Lee"
    ("Who led the U.S. in it?", "He led the U.S. in it.", "He led the Bo in it."),
]


@pytest.mark.parametrize("question, text, expected", NAMES)
def test_names_and_numbers_that_the_question_has_are_exchanged_by_form(question, text, expected):
    q = asked(question, "It was in Rome.", "Rome")
    pool = pool_of(q, "Oslo")
    assert set(tries(data.exchange_names, text, q, pool)) == {expected}


def test_no_synthetic_answer_or_attack_can_be_made():
    """Unanswerable, no other answer; not located; no name, no auxiliary, no wh-word."""
    q = asked("Who was the owner of Lake Zurich?", "Ada Abel was it. It rained.", "Ada Abel")
    pool, rng = pool_of(q, "Ben Berg", "Cora Cole"), random.Random(0)
    for change in (data.another_answer, data.synthetic_answer, data.add_one_sentence, data.negate):
        assert change(q, pool, rng) is not None, change
        assert change(replace(q, answers=[]), pool, rng) is None, change
        for poor in ({}, pool_of(q, "Ada Abel"), {("no such type",): ["Ben Berg"]}):
            assert change(q, poor, rng) is None, (change, poor)
    lost = replace(q, answers=[*q.answers, Answer("x", UNLOCATED)])
    for change in (data.synthetic_answer, data.distractor):
        assert change(lost, pool, rng) is None, change
    for text in ("Who opened it?", "Is Lake Zurich big?"):
        assert data.add_one_sentence(replace(q, question=text), pool, rng) is None, text
    for text in ("Who opened it?", "Who was not there?", "Who wasn't it, was he?", "Was it big?"):
        assert data.negate(replace(q, question=text), pool, rng) is None, text


ATTACKED = [  # attack, question, gold, another answer, the sentence that is added
    (data.negate, "Where was Ada born?", "Rome", "Oslo", "Oslo was not Ada born."),
    (data.negate, "In what country is it? ", "Peru", "Chad", "In Chad is not it."),
    (data.negate, "the dome was built by whom?", "Ada", "Ben", "the dome was not built by Ben."),
    (data.negate, "What is the lake?", "the Alps", "The Ox", "The Ox is not the lake."),
    (data.add_one_sentence, "Who opened Lake Zug?", "Al Lee", "Bo Oz", "Bo Oz opened Ben Cole."),
    (data.add_one_sentence, "When did 12 die in it?", "1066", "1815", "1815 did 8 die in it."),
    (data.add_one_sentence, "Who saw the Alp?", "Ada", "Ox", "Ox saw the Bo."),
    (data.add_one_sentence, "Who read Twigg's study?", "Ada", "Bo", "Bo read Bo's study."),
]


@pytest.mark.parametrize("change, question, gold, other, sentence", ATTACKED)
def test_attacks_by_hand(change, question, gold, other, sentence):
    """The fake in the wh-phrase's place; "not" after the auxiliary, or other names and numbers."""
    q = asked(question, f"It was {gold}.", gold)
    q = replace(q, answers=[Answer(gold, UNLOCATED)])  # its place does not matter
    attacked = change(q, pool_of(q, gold, other), random.Random(0))
    assert attacked == replace(q, context=f"It was {gold}. {sentence}")


def test_rematch_by_hand():
    """The rarest word decides; not a paragraph with the answer, of another article, or unlike."""
    own, holds = "Ada opened the lake cafe of Zurich: that is all.", "ZURICH has a lake cafe."
    less = "It is the cafe of the mill. Where is that? Where did who go?"
    best, rare = "It is the cafe of a lake near Bern.", "It is Zeno, the owner of the mill."
    q = asked("Where is the lake cafe of Ada?", own, "Zurich")
    others = [Question(text, "Why?", text, [], "T") for text in (holds, less, best, rare)]
    foreign = Question("f", "Why?", "The lake cafe of Ada, the lake cafe of Ada.", [], "U")
    (moved,) = data.rematch([q, *others, foreign])
    assert moved == Question(moved.id, q.question, best, [], "T") and moved.id != "q"
    zeno = replace(q, question="Does Zeno know the lake cafe?")  # one rare word, two frequent
    assert data.rematch([zeno, *others])[0].context == rare
    unlike = Question("u", "Why?", "Nothing is similar: where of the, and is?", [], "T")
    assert data.rematch([q, unlike, foreign]) == []


def words_of(text):
    return set(re.findall(r"\w+", text.lower()))


def plain_rematch(questions):
    """Every question compared with every context of its article: [(question, context)]."""
    contexts = list(dict.fromkeys((q.title, q.context) for q in questions))
    words = {text: words_of(text) for _, text in contexts}
    found = []
    for q in questions:
        asked_for, best, likest = sorted(words_of(q.question) - data.STOP_WORDS), 0, None
        for title, text in contexts if q.answers else ():
            holds_gold = any(answer.text.lower() in text.lower() for answer in q.answers)
            if title == q.title and text != q.context and not holds_gold:
                shared = [word for word in asked_for if word in words[text]]
                score = sum(1 / sum(word in own for own in words.values()) for word in shared)
                if score > best:  # of equals the first
                    best, likest = score, text
        found += [(q.question, likest)] if likest else []
    return found


@pytest.mark.parametrize("rows", ["toy", "flat", "two articles"])
def test_rematch_by_words_finds_what_comparing_every_context_does(rows):
    rng = random.Random(0)
    questions = toy_corpus(400, 3)
    if rows != "toy":  # of few words, so that many contexts are equally like
        texts = [" ".join(rng.choices("Ada lake mill cafe red the 12 of".split(), k=5))]
        texts += [" ".join(rng.sample(ALPHABET, 6)) for _ in range(60)]
        questions = [asked(" ".join(rng.sample(ALPHABET, 3)), text, text[:1]) for text in texts]
        questions[::5] = [replace(q, answers=[Answer("?!", UNLOCATED)]) for q in questions[::5]]
        titles = ("", "") if rows == "flat" else ("T", "U")
        questions = [replace(q, title=rng.choice(titles)) for q in questions * 3]
    found = [(q.question, q.context) for q in data.rematch(questions)]
    assert found == plain_rematch(questions) and len(found) > 50


@pytest.mark.parametrize("question, said", [("Où est Zürich né?", False), ("何时建成?", True)])
def test_of_another_script_it_is_said_that_made_sentences_are_english(question, said, capsys):
    data.attack([asked(question, "a b", "b")] * 3, "negation")
    assert ("English" in capsys.readouterr().err) == said


def test_the_seed_decides_and_a_share_is_changed():
    questions, part = toy_corpus(400, 5), functools.partial
    changes = [part(data.attack, questions, kind) for kind in ("addonesent", "negation")]
    makes = data.synthetic_answer, data.distractor
    for change in (*changes, *(part(data.add_sentences, questions, 0.5, make) for make in makes)):
        assert change(seed=3) == change(seed=3) != change(seed=4), change
    assert data.attack(questions, "information-seeking") == data.rematch(questions)
    for make in makes:
        counts, golds = {}, 2 if make == data.synthetic_answer else 1
        for share in (0.0, 0.3, 1.0):
            new = data.add_sentences(questions, share, make, seed=2)
            changed = [(q, n) for q, n in zip(questions, new, strict=True) if n != q]
            assert all((len(q.answers), len(n.answers)) == (1, golds) for q, n in changed)
            counts[share] = len(changed)
        assert counts[0.0] == 0 and 100 < counts[1.0] <= 200, counts
        assert 0.2 < counts[0.3] / counts[1.0] < 0.4, counts


# --- The toy corpus -----------------------------------------------------------------------------

STATED = {  # a word of the question: words of the sentences that answer it
    **{"born": "born|home town", "study": "studied|school", "founded": "founded|set up"},
    **{"teacher": "{p} was taught|teacher of {p}", "die": "died|death"},
}


def statements(question):
    """The sentences of a toy context that state what is asked of the person."""
    person = re.search("[A-Z][a-z]+ [A-Z][a-z]+", question.question)[0]
    words = next(STATED[key] for key in STATED if f" {key}" in question.question).format(p=person)
    sentences = question.context.split(". ")
    return [text for text in sentences if person in text and re.search(rf"\b({words})\b", text)]


def test_the_toy_corpus_states_what_it_answers_and_nothing_else():
    questions = toy_corpus(1000, 7)
    assert len({q.id for q in questions}) == len(questions) == 1000
    assert sum(bool(q.answers) for q in questions) == 500
    for q in questions + toy_corpus(1000, 7, "information-seeking"):
        assert len(statements(q)) == len(q.answers), q
        for answer in q.answers:
            assert q.context.startswith(answer.text, answer.start), q
            assert answer.text in statements(q)[0], q
    assert questions == toy_corpus(1000, 7) != toy_corpus(1000, 8)


def test_the_toy_names_can_be_read_and_train_shares_no_context_with_the_others():
    contexts = {name: {q.context for q in read_questions(name)} for name in data.TOY}
    train = contexts.pop("toy-train")
    assert len(contexts) == 4 and all(found and not found & train for found in contexts.values())
