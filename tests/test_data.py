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


def read(tmp_path, content, labelled=True):
    """What read_questions makes of a value, written as JSON, or of bytes or text as they are."""
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    (tmp_path / "x.json").write_bytes(content)
    return read_questions(tmp_path / "x.json", labelled)


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


def test_without_labels_answers_are_not_looked_at(tmp_path):
    for change in ({"answers": None}, {"answers": "array(['b'])"}, {"is_impossible": "True"}):
        assert read(tmp_path, [ROW | change], labelled=False)[0].answers == []


MRQA = {"context": "a b c", "qas": [{"qid": "q1", "question": "?", "answers": ["b"]}]}
GUID = {"guid": "k-1"} | {key: value for key, value in ROW.items() if key != "id"}
BROKEN = {  # what is broken: the file, what its sentence must say
    "nothing": ("", "line 1"),
    "no questions": ({"data": []}, "no questions"),
    "not UTF-8": ("é".encode("latin-1"), "utf-8"),
    "half a gzip": (gzip.compress(b"[]" * 99)[:-9], "end-of-stream"),
    "half a JSON": (FORMATS["v2.0"][:-30], "line 1"),
    "JSON broken in its line 9": (json.dumps([ROW], indent=1).replace('"b"', "b"), "line 9"),
    "Parquet": (b"PAR1\x15\x04\xff", "this is Parquet.*SQuAD JSON is wanted.*to_json"),
    "a list of lists": ([[1]], "list"),
    "an id twice": ([ROW, ROW | {"id": "good"}, ROW], "question id-7: its id occurs twice"),
    "a number and a text as id": ([ROW | {"id": 1}, ROW | {"id": "1"}], "1: its id occurs twice"),
    "no id, but a guid": ([GUID], "question 1: id: missing.* guid"),
    "an article's id": ([{"id": "a", "paragraphs": [GUID]}], "question 1: id: missing"),
    "columns": ({k: {"0": v} for k, v in ROW.items()}, "id, question, context: missing"),
    "MRQA": (lines([{"header": {}}, MRQA]), "id, question, context.*: missing.*header"),
}
ONE_TEXT, TWO = {"text": "b", "answer_start": 2}, golds(["b", "c"], [2])
CHANGES = {  # the same of changes of a row
    "no context": ({"context": None}, "context: missing"),
    "question a list": ({"question": ["Where?"]}, "question: .*wrong kind"),
    "no answers": ({"answers": None}, "answers: missing"),
    "answers are text": ({"answers": "{'text': array(['b'])}"}, "answers: .*wrong kind"),
    "answers hold one text": ({"answers": ONE_TEXT}, "one text and not a list"),
    "fewer offsets than texts": ({"answers": TWO}, "shorter"),
    "an offset of 2.5": ({"answers": golds(["b"], [2.5])}, "2.5"),
    "no offset": ({"answers": [{"text": "b"}]}, "answer_start"),
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


# --- Windows ------------------------------------------------------------------------------------


def pair_truncation(questions, tokenizer, max_length, stride):
    """tokenizers' own windows: [(question, ids, segments, which context tokens, offsets of all)]."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_padding()
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
    for start, end in offsets:
        while end < len(text) and end not in held and text[end].isprintable() and text[end] != " ":
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
        asked = tokenizer.encode(q.question.strip(), add_special_tokens=False).ids
        twos = [t in range(T)[window.context] and ids[t] in asked for t in range(len(ids))]
        expected = [2 if two else segment for two, segment in zip(twos, segments)]
        assert marked[b].segment_ids.tolist() == expected, q
    return windows


@pytest.mark.parametrize("family", ["bert", "roberta", "minilm"])
@pytest.mark.parametrize("shape", [(384, 128), (70, 10)])
def test_windows_are_pair_truncation_and_golds_are_read_back(family, shape):
    """The tokenizers of fixtures/bert and of MiniLM bring truncation and padding along."""
    if family == "minilm" and not (MINILM and REAL.exists()):
        pytest.skip(f"EQA_MINILM is not set, or {REAL} (EQA_DATA) is not there")
    exact, questions = [], toy_corpus(200, 3) if family != "minilm" else read_questions(REAL)[::40]
    for window in check_windows(questions, family, *shape):
        pairs = zip(window.golds.tolist(), window.question.answers)
        exact += [window.text(*gold) == answer.text for gold, answer in pairs if gold[0] >= 0]
    assert len(exact) > 90 and np.mean(exact) > 0.98, f"{np.mean(exact):.1%} of {len(exact)}"


COVERS = [  # tokenizer, context, answer, text of its span (None: it has no token), its tokens
    ("bert", "he opened the lake", "open", "opened", 1),  # as "Japan" in "Japanese"
    ("bert", "by her ownership of", "ship", "ship", 1),
    ("bert", "the cafe\u0301 is near", "cafe\u0301", "cafe\u0301", 1),  # an accent is no token
    ("bert", "by Zo\u0308", "Zo\u0308", "Zo\u0308", 2),
    ("bert", "the \u200b lake", "\u200b", None, 0),  # nor is a zero-width character
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
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert window.input_ids.tolist() == tokenizer.encode("who?", context).ids


def test_windows_by_hand():
    """Twelve words, windows of six that share two: what is cut is not labelled, order is kept."""
    context = "the a in is it was by of near lake cafe owner"
    golds = [Answer("was by", 15), Answer("lake", 30), Answer("nowhere", UNLOCATED)]
    questions = [Question("q", "who", context, golds), Question("r", "who", context, [])]
    windows = make_windows(questions, load("bert"), 10, 2)  # [CLS] who [SEP] 6 tokens [SEP]
    out = [-1, -1]
    expected = [[out] * 3, [[4, 5], [8, 8], out], [out, [4, 4], out], [], [], []]
    assert [window.golds.tolist() for window in windows] == expected
    assert [window.context for window in windows[:3]] == [slice(3, 9), slice(3, 9), slice(3, 7)]
    positions = data.collate(windows).positions.tolist()  # of the first listed gold, and no other
    assert positions == [[0, 4, 0, 0, 0, 0], [0, 5, 0, 0, 0, 0]]


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


def test_sentences_and_types_of_answers():
    """Sentences begin after a stop, not after an abbreviation; answers of a type are exchanged."""
    assert data.sentence_bounds('No "Why?" she asked. (It was 3.) 1066 came.') == [0, 21, 33, 43]
    text = "Dr. J. Doe of St. Ives paid $1.50 e.g. to him. Yes! So"
    assert data.sentence_bounds(text) == [0, 47, 52, 54]
    groups = [
        ["1066", "1999", "2010"],
        ["February 2015", "3 May", "18th century", "in 1066", "the 1990s"],
        ["90,790 tonnes", "40", "ten men", "two"],
        ["Ada Abel", "The Bank of England", "Oslo", "Cats and the Moon"],
        ["tennis", "a red cat", "Ada's cat"],
    ]
    kinds = [{data.answer_type(text)[0] for text in texts} for texts in groups]
    assert {len(found) for found in kinds} == {1} and len(set.union(*kinds)) == 5, kinds
    pool = ["Rome", "1066", "red", "New York", "Oslo", "Bern"]
    drawn = {data.another_answer("Zug", "ROME, Zug", pool, random.Random(k)) for k in range(40)}
    assert drawn == {"Oslo", "Bern"}, "of the same type and length, and not in the context"
    assert data.another_answer("Zug", "Oslo, Bern, Rome", pool, random.Random(0)) is None


def asked(question, context, *golds):
    """A question whose golds stand where they first occur."""
    answers = [Answer(gold, context.index(gold)) for gold in golds]
    return Question("q", question, context, answers, "T")


def synthetic(question, pool, kind):
    """What 40 seeds make of a question: {context: the text of the last answer}."""
    made = [data.synthetic_answer(question, pool, random.Random(k), kind) for k in range(40)]
    for new in made:
        assert all(new.context.startswith(a.text, a.start) for a in new.answers), new
        assert [a.text for a in new.answers[:-1]] == [a.text for a in question.answers]
    return {new.context: new.answers[-1].text for new in made}


def test_the_sentence_goes_to_any_slot_and_both_answers_are_gold():
    question = asked("Who opened it? ", "Ada Lee opened it. It rained.", "Ada Lee", "Lee")
    pool, expected = ["Ben Cole", "1066", "Ada Lee", "Bo"], {}
    first, last = "Ada Lee opened it.", "It rained."
    made = {"evidence": "Ben Cole opened it.", "template": "Who opened it is Ben Cole."}
    for kind, new in made.items():
        orders = [new, first, last], [first, new, last], [first, last, new]
        expected[kind] = {" ".join(order) for order in orders}
    expected["mixed"] = expected["evidence"] | expected["template"]
    for kind in expected:
        assert synthetic(question, pool, kind) == dict.fromkeys(expected[kind], "Ben Cole")


def test_a_distractor_is_denied_or_about_others_and_no_gold():
    context, pool = "There Ada Lee was born in Oslo. It rained.", ["Rome", "Ben Cole"]
    question, sentences = asked("Where was Ada Lee born?", context, "Oslo"), set()
    for seed in range(40):
        new = data.synthetic_answer(question, pool, random.Random(seed), "distractor")
        (gold,) = new.answers
        assert gold.text == "Oslo" and new.context.startswith("Oslo", gold.start)
        sentences.add(new.context.replace(context[:31], "").replace("It rained.", "").strip())
    assert sentences == {"There Ada Lee was not born in Rome.", "There Ben Cole was born in Rome."}
    for context in ("it is Oslo, yes Oslo.", "it rained in Oslo."):  # names the gold; no change
        question = asked("Where?", context, "Oslo")
        assert data.synthetic_answer(question, pool, random.Random(0), "distractor") is None
    questions = [asked(q, "Ada Lee was born in Oslo.", "Oslo") for q in ("Where?", "Who?")]
    assert data.add_synthetic_answers(questions, 1.0, kind="distractor") == questions, "no pool"


SENTENCES = [  # question, context, golds, another answer, the sentence with it
    ("Where?", "He saw the Ad Sea. It rained.", ["Ad Sea"], "the Alps", "He saw the Alps."),
    ("What?", "The mill burnt. It rained.", ["The mill"], "a lake", "A lake burnt."),
    ("Where?", "It rained. He was in Rome", ["Rome"], "Oslo", "He was in Oslo."),
    ("What?", 'He said "Go!" It rained.', ['"Go!"'], '"No!"', 'He said "No!"'),
    # An evidence sentence that would still hold a gold: the template.
    ("Where?", "In Rome, rome is big. It rained.", ["Rome"], "Oslo", "Where is Oslo."),
    ("Who?", "Lee, or Ada Lee, came. So", ["Ada Lee", "Lee"], "Ben Bo", "Who is Ben Bo."),
]


@pytest.mark.parametrize("question, context, golds, other, sentence", SENTENCES)
def test_the_sentence_by_hand(question, context, golds, other, sentence):
    """One article, a capital first, a stop at the end, no gold left in it."""
    found = synthetic(asked(question, context, *golds), [other], "evidence")
    assert sentence in {new.replace(context, "").strip() for new in found}, found


def test_no_sentence_is_put_inside_a_gold():
    gold = "said. It rained. So"
    question = asked("What?", "He said. It rained. So it did.", gold)
    assert all(gold in context for context in synthetic(question, ["a. B was. So on"], "template"))


def test_no_synthetic_answer_or_attack_can_be_made():
    """Unanswerable, no other answer of the type; not located; no name, no auxiliary, no wh-word."""
    rng, pool = random.Random(0), ["Ada Abel", "Ben Berg", "Cora Cole"]
    q = asked("Who was the owner of Lake Zurich?", "Ada Abel was it. It rained.", "Ada Abel")
    for change in (data.synthetic_answer, data.add_one_sentence, data.negate):
        assert change(q, pool, rng) is not None, change
        assert change(replace(q, answers=[]), pool, rng) is None, change
        for poor in ([], ["Ada Abel"], ["1066", "red", "seven of the lakes"]):
            assert change(q, poor, rng) is None, (change, poor)
    lost = replace(q, answers=[*q.answers, Answer("x", UNLOCATED)])
    assert data.synthetic_answer(lost, pool, rng) is None
    for text in ("Who opened it?", "Is Lake Zurich big?"):
        assert data.add_one_sentence(replace(q, question=text), pool, rng) is None, text
    for text in ("Who opened it?", "Who was not there?", "Who wasn't it, was he?", "Was it big?"):
        assert data.negate(replace(q, question=text), pool, rng) is None, text


ATTACKED = [  # attack, question, gold, another answer, the sentence that is added
    (data.negate, "Where was Ada born?", "Rome", "Oslo", "Oslo was not Ada born."),
    (data.negate, "In what country is it? ", "Peru", "Chad", "In Chad is not it."),
    (data.negate, "the dome was built by whom?", "Ada", "Ben", "the dome was not built by Ben."),
    (data.negate, "What is the lake?", "the Alps", "The Ox", "The Ox is not the lake."),
    (data.add_one_sentence, "Who opened Lake Zug?", "Al Lee", "Bo Oz", "Bo Oz opened Bo Oz."),
    (data.add_one_sentence, "When did 12 die in it?", "1066", "1815", "1815 did 8 die in it."),
    (data.add_one_sentence, "Who saw the Alp?", "Ada", "Ox", "Ox saw the Ox."),
    (data.add_one_sentence, "Who read Twigg's study?", "Ada", "Bo", "Bo read Bo's study."),
]


@pytest.mark.parametrize("change, question, gold, other, sentence", ATTACKED)
def test_attacks_by_hand(change, question, gold, other, sentence):
    """The fake in the wh-phrase's place; "not" after the auxiliary, or other names and numbers."""
    q = asked(question, f"It was {gold}.", gold)
    attacked = change(q, [gold, other, "8"], random.Random(0))
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


def test_the_seed_decides_and_a_share_is_changed():
    questions, part = toy_corpus(400, 5), functools.partial
    changes = [part(data.attack, questions, kind) for kind in ("addonesent", "negation")]
    for change in (*changes, part(data.add_synthetic_answers, questions, 0.5)):
        assert change(seed=3) == change(seed=3) != change(seed=4), change
    assert data.attack(questions, "information-seeking") == data.rematch(questions)
    for share in (0.0, 0.3, 1.0):
        new = data.add_synthetic_answers(questions, share, seed=2)
        changed = [q for q, n in zip(questions, new, strict=True) if n != q]
        assert all(q.answers for q in changed)
        assert share - 0.1 < len(changed) / 200 <= share + 0.05, len(changed)


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
