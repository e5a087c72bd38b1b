"""SQuAD questions, the windows a model sees, synthetic answers, attacks, and a toy corpus.

Read this file first, then model.py, then robust_eqa.py. The road of the data:

    SQuAD JSON -> [Question] -> synthetic answers / attacks (still Questions) -> [Window] -> Batch

Letters: B windows in a batch, T positions in a window. A *position* counts tokens inside a window,
an *offset* counts characters inside a context. Sections are those of Tran & Kretchmar (2024).
"""

import gzip
import hashlib
import json
import math
import os
import random
import re
import sys
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from tokenizers import Tokenizer

# --- Questions -------------------------------------------------------------------------------
UNLOCATED = -1  # Answer.start of an answer whose text cannot be found in the context


class InputError(ValueError):
    """What a user handed us cannot be used; the message is one sentence that says what to do."""


def check_fields(record, **ranges):
    """InputError unless each field of a dataclass is one of its Literal's values or in its range.

    A number's range is from 0, or from 1 if it is whole and its default is not 0, to 10**9.
    """
    for f in fields(record):
        value, choices = getattr(record, f.name), get_args(f.type)
        low, high = ranges.get(f.name, (int(f.type is int and f.default > 0), 10**9))
        allowed = " or ".join(choices) or f"a number from {low} to {high}"
        fits = value in choices if choices else True
        if f.type in (int, float, bool):
            fits = type(value) in (f.type, f.type is float and int) and low <= value <= high
        if not fits:
            raise InputError(f"{f.name} {value!r:.40} is not {allowed}")


@dataclass(frozen=True)
class Answer:
    text: str
    start: int  # the offset at which the text stands


@dataclass(frozen=True)
class Question:
    id: str
    question: str
    context: str
    answers: list[Answer]  # the golds; without any the question is unanswerable
    title: str = ""  # of the article that the context is from


def read_questions(path_or_name):
    """Read SQuAD JSON, the Hub's flat JSON or JSON Lines, gzipped or not, or a name's data.

    Names are those of TOY and of DATASETS, whose files are fetched into a cache the first time.
    """
    if path_or_name in TOY:
        return toy_corpus(*TOY[path_or_name])
    path, place, articles, questions, at = Path(path_or_name), "the file", [], {}, 0
    address, checksum = DATASETS.get(path_or_name, ("", ""))
    advice = "see Formats in README.md, or give a name from there"
    if address:
        cache = os.environ.get("EQA_CACHE") or Path(torch.hub.get_dir(), "robust-eqa")
        path, advice = Path(cache, f"{path_or_name}.json"), f"put {address} there"
    try:
        if address and not path.exists():
            with urllib.request.urlopen(address, timeout=60) as response:
                content = response.read()  # an error if it breaks off
            if not hashlib.sha256(content).hexdigest().startswith(checksum):
                raise ValueError("its checksum is wrong")
            write_file(path, content)
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
        while (at := re.compile(r"\s*").match(text, at).end()) < len(text):  # JSON, or many lines
            value, at = json.JSONDecoder().raw_decode(text, at)
            value = value.get("data", value) if isinstance(value, dict) else value
            articles += value if isinstance(value, list) else [value]
        for a, article in enumerate(articles):  # a flat row is its own paragraph and question
            place = f"data[{a}]"
            for p, paragraph in enumerate(article.get("paragraphs", [article])):
                place = f"data[{a}], paragraph {p}"
                for q, row in enumerate(paragraph.get("qas", [paragraph])):
                    place = f"data[{a}], paragraph {p}, question {q}"
                    question = _question(row, paragraph["context"], article.get("title"))
                    if question.id in questions:
                        raise ValueError(f"the id {question.id!r} occurs twice")
                    questions[question.id] = question
        if not questions:
            raise ValueError("it holds no questions")
    except Exception as error:  # odd content makes errors of many kinds
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: {place} cannot be read ({reason}); {advice}") from None
    lost = [q.id for q in questions.values() if any(a.start == UNLOCATED for a in q.answers)]
    if lost:
        print(f"{path}: {some_ids(lost)} have an answer that cannot be placed", file=sys.stderr)
    return list(questions.values())


def _question(row, context, title):
    """A row of a file -> Question; an answer not at its offset is placed if its text occurs once."""
    key, impossible = row["id"], row.get("is_impossible")
    key = str(key) if type(key) is int else key
    golds = row.get("answers", []) if impossible else row["answers"]
    if not isinstance(golds, dict):  # a list of objects, where the Hub has an object of lists
        golds = {field: [gold[field] for gold in golds] for field in ("text", "answer_start")}
    pairs = list(zip(golds["text"], golds["answer_start"], strict=True))
    if pairs and impossible:
        raise ValueError("it is impossible but has answers")
    for text in (key, context, row["question"], *(text for text, _ in pairs)):
        if not isinstance(text, str) or not text.strip() or re.search("[\ud800-\udfff]", text):
            raise ValueError(f"the text {text!a:.40} is empty, no text or broken Unicode")
    answers = []
    for text, start in pairs:
        start = int(str(start))  # a number or its digits, no fraction
        if start < 0 or not context.startswith(text, start):
            start = context.find(text)
            start = start if start == context.rfind(text) else UNLOCATED
        answers.append(Answer(text, start))
    return Question(key, row["question"], context, answers, str(title or ""))


def some_ids(ids):
    """How many, and at most five of them: '7 questions (a, b, c, d, e, ...)'."""
    return f"{len(ids)} questions ({', '.join(list(ids)[:5])}{', ...' if len(ids) > 5 else ''})"


def write_questions(questions, path):
    """Write questions as SQuAD v2.0 JSON, in their order, gzipped if the name ends in .gz."""
    data = []
    for title, article in groupby(questions, lambda q: q.title):
        data.append({"title": title, "paragraphs": []})
        for context, group in groupby(article, lambda q: q.context):
            qas = []
            for q in group:
                golds = [{"text": a.text, "answer_start": a.start} for a in q.answers]
                about = {"id": q.id, "question": q.question, "is_impossible": not golds}
                qas.append(about | {"answers": golds})
            data[-1]["paragraphs"].append({"context": context, "qas": qas})
    content = json.dumps({"version": "v2.0", "data": data}).encode()
    write_file(path, gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def write_file(path, content):
    """Write bytes, or anything else as JSON, whole or not at all; None only tries whether it could."""
    if not isinstance(content, (bytes, type(None))):
        content = json.dumps(content, ensure_ascii=False, indent=2).encode()
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is a directory or a device")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            with open(temporary, "xb") as file:  # x: not through a link that lies there
                file.write(content or b"")
                file.flush()
                os.fsync(file.fileno())
            if content is not None:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written ({error}); choose another place") from None


SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
CODALAB = "https://worksheets.codalab.org/rest/bundles/{}/contents/blob/"
HUB = "https://huggingface.co/datasets/sonquoctran/{}/resolve/main/{}"
DATASETS = {  # name: address, the first 16 digits of its SHA-256 where that is known
    "squad2-train": (SQUAD + "train-v2.0.json", "68dcfbb971bd3e96"),
    "squad2-dev": (SQUAD + "dev-v2.0.json", "80a5225e94905956"),
    "addonesent": (CODALAB.format("0x3ac9349d16ba4e7bb9b5920e3b1af393"), "50420ac8d8b7547c"),
    "addsent": (CODALAB.format("0xb765680b60c64d088f5daccac08b3905"), "40e3602aa5195cda"),
    "multians": (HUB.format("Multians", "train-squad-v2-multians.json"), ""),
    "multians-agent": (HUB.format("Multians", "train-squad-agent-multians.json"), ""),
    "agent-train": (HUB.format("SQuAD_AGent", "SQuAD_AGent_train.json"), ""),
    "agent-dev": (HUB.format("SQuAD_AGent", "SQuAD_AGent_dev.json"), ""),
}


# --- Windows ---------------------------------------------------------------------------------
ANSWER, ELSEWHERE, NO_ANSWER = range(3)  # labels: a gold inside, golds elsewhere only, no golds


@dataclass(frozen=True, slots=True)
class Window:
    """A question and a part of its context."""

    question_index: int
    question: Question
    parts: tuple  # arrays of [CLS] question [SEP], of context tokens start..stop-1, of [SEP]
    context_slice: slice  # the positions that hold context
    golds: np.ndarray  # (k, 2) context tokens of every gold, inclusive, -1 where it has none
    start: int
    stop: int
    columns = property(lambda self: np.hstack(self.parts))  # token ids, segments, two offsets
    input_ids = property(lambda self: self.columns[0].tolist())
    segment_ids = property(lambda self: self.columns[1].tolist())
    offsets = property(lambda self: list(zip(*self.columns[2:].tolist())))
    answer_spans = property(lambda self: [tuple(x) for x in self.spans(self.golds).tolist()])
    label = property(lambda self: window_label(self.golds, self.start, self.stop)[1])

    def __len__(self):
        return sum(part.shape[1] for part in self.parts)

    def spans(self, golds):
        """(k, 2) context tokens of golds -> (j, 2) inclusive positions of those inside."""
        inside, _ = window_label(golds, self.start, self.stop)
        return inside - self.start + self.context_slice.start

    def text(self, start, end):
        """The text of context positions start..end, inclusive."""
        _, _, starts, ends = self.columns
        return self.question.context[starts[start] : ends[end]].strip()


class Batch(NamedTuple):
    """B windows padded to the longest of them."""

    input_ids: torch.Tensor  # (B, T) int64, 0 where padded
    segment_ids: torch.Tensor  # (B, T) int64
    mask: torch.Tensor  # (B, T) bool, False where padded
    context_mask: torch.Tensor  # (B, T) bool, True on context tokens
    start_labels: torch.Tensor  # (B, T) float, 1 at the first token of every gold inside
    end_labels: torch.Tensor  # (B, T) float, 1 at the last token of every gold inside
    start_positions: torch.Tensor  # (B,) int64, of the first listed gold, 0 if not inside
    end_positions: torch.Tensor  # (B,) int64


def collate(windows, device="cpu", multiple=1, most=10**9):
    """[Window] -> Batch, T a multiple of `multiple` or else `most`; no loop runs over tokens."""
    shape = 2, len(windows), min(most, -(-max(map(len, windows)) // multiple) * multiple)
    tokens, masks, labels = np.zeros(shape, int), np.zeros(shape, bool), np.zeros(shape, np.float32)
    positions = np.zeros(shape[:2], int)
    for b, window in enumerate(windows):
        tokens[:, b, : len(window)] = window.columns[:2]
        masks[0, b, : len(window)] = masks[1, b, window.context_slice] = True
        spans, first = window.spans(window.golds), window.spans(window.golds[:1])
        labels[0, b, spans[:, 0]] = labels[1, b, spans[:, 1]] = 1
        positions[:, b] = first[0] if len(first) else 0
    arrays = *tokens, *masks, *labels, *positions
    return Batch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))


def token_spans(offsets, answers):
    """The smallest run of context tokens that covers each answer; -1, -1 where none does.

    (n, 2) offsets, k answers -> (k, 2) first and last token. A zero-width character has none.
    >>> token_spans(np.array([(0, 3), (4, 9), (9, 10)]), [Answer("pan", 6), Answer("x", -1)])
    array([[ 1,  1],
           [-1, -1]])
    """
    starts = np.array([answer.start for answer in answers], int)
    ends = starts + np.array([len(answer.text) for answer in answers], int)
    first = np.searchsorted(offsets[:, 1], starts, side="right")  # the first that ends after start
    last = np.searchsorted(offsets[:, 0], ends, side="left") - 1  # the last that starts before end
    return np.where((starts != UNLOCATED) & (first <= last), (first, last), -1).T


def window_bounds(length, room, stride):
    """Cut `length` context tokens into (start, stop) of at most `room` that share `stride`.

    >>> window_bounds(10, room=5, stride=2)
    [(0, 5), (3, 8), (6, 10)]
    """
    starts = range(0, max(1, length - stride), room - stride)
    return [(start, min(start + room, length)) for start in starts]


def window_label(golds, start, stop):
    """The golds that lie wholly in context tokens start..stop-1, and the label they give (5.2).

    (k, 2) token spans -> (j, 2) those inside, and ANSWER, ELSEWHERE or NO_ANSWER.
    >>> window_label(np.array([(2, 3), (4, 6)]), 0, 5)
    (array([[2, 3]]), 0)
    """
    inside = golds[(golds[:, 0] >= start) & (golds[:, 1] < stop)]
    return inside, ANSWER if len(inside) else ELSEWHERE if len(golds) else NO_ANSWER


def make_windows(questions, tokenizer, max_length=384, stride=128, mark_overlap=False):
    """Cut questions into windows of at most max_length tokens; neighbours share `stride` tokens.

    Equal, id for id and offset for offset, to pair truncation ("only_second"), but each context and
    each question is tokenized once. Answers become the smallest run of whole tokens that covers
    them. With mark_overlap, context tokens that occur in the question get segment 2 (toy model).
    """
    if tokenizer.truncation or tokenizer.padding:  # as some tokenizer.json files bring along
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
    owners = tokenizer.encode("a", "b").sequence_ids  # of [CLS] a [SEP] b [SEP]
    if [owner for owner, _ in groupby(owners)] != [None, 0, None, 1, None]:
        wrong = "the tokenizer does not put special tokens around question and context"
        raise InputError(f"{wrong}; give its tokenizer.json a post-processor for pairs")
    last = owners[::-1].index(1)  # special tokens at the end of a pair
    first = owners.count(None) - last  # and before its second text, if the first is empty

    def columns(encode, pairs):
        for k in range(0, len(pairs), 1000):  # in parts: an Encoding takes about 150 bytes a token
            for e in encode(pairs[k : k + 1000]):
                yield np.array([e.ids, e.type_ids, *zip(*e.offsets)], np.int32)

    contexts = [("", c) for c in dict.fromkeys(q.context for q in questions)]  # about one in seven
    contexts = dict(zip(contexts, columns(tokenizer.encode_batch, contexts)))
    asked = [(question.question, "") for question in questions]
    asked, windows = columns(tokenizer.encode_batch_fast, asked), []  # fast: offsets are 0
    for index, (question, before) in enumerate(zip(questions, asked)):
        before, context = before[:, :-last], contexts["", question.context]
        context, after = context[:, first:-last], context[:, -last:]
        room = max_length - before.shape[1] - last
        if room <= stride:
            advice = f"shorten it, or change max_length {max_length} or stride {stride}"
            raise InputError(f"question {question.id!r} fills the window; {advice}")
        if mark_overlap:
            context = context.copy()
            context[1, (context[0, :, None] == before[0]).any(1)] = 2
        golds = token_spans(context[2:].T, question.answers)
        for start, stop in window_bounds(context.shape[1], room, stride):
            parts = before, context[:, start:stop], after
            where = slice(before.shape[1], before.shape[1] + stop - start)
            windows.append(Window(index, question, parts, where, golds, start, stop))
    return windows


def length_bucketed(lengths, batch_size, rng):
    """Shuffled batches of indices of nearly equal length.

    Of SQuAD's windows, batches of 8 are then hardly padded; at random they are 1.6 times as large.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return [batches[k] for k in rng.permutation(len(batches))]


# --- Synthetic answers and attacks: Question -> Question -------------------------------------
SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\b(?:Mr|Dr|St|Jr|Sr|vs|No|Mt))(?<!\bMrs)"  # initials, abbreviations
    r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])"
)
ENTITY = re.compile(r"(?<=\s)[A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*|\b\d[\d,.]*\b")
AUX = r"(?:is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|may)(?![^\s?])"
WH_PHRASE = re.compile(  # "what year" up to the auxiliary, or "how many", or a word; the auxiliary
    rf"(?i)(?<!\S)(?:(?:what|which|whose|how)(?: \S+){{0,3}}?(?= {AUX})|how \S+"
    rf"|who|whom|when|where|why|what|which|whose|how)(?![^\s?])( {AUX})?"
)


def answer_type(text):
    """Answers of one type are exchanged: "1066" -> ("year", 1), "Ada Abel" -> ("name", 2)."""
    kinds = {"year": r"(1\d|20)\d\d$", "number": r".*\d", "name": r".*\b[A-Z]", "words": ""}
    kind = next(kind for kind in kinds if re.match(kinds[kind], text, re.DOTALL))
    return kind, min(len(text.split()), 4)


def answer_pool(questions):
    """The texts of all first gold answers: what synthetic and fake answers are drawn from."""
    return [question.answers[0].text for question in questions if question.answers]


def _another(text, question, pool, rng):
    """An answer of the pool with the type of `text` that the context does not hold, or None."""
    context, wanted = question.context.casefold(), answer_type(text)
    for _ in range(300 if pool else 0):
        other = pool[int(rng.random() * len(pool))]
        if answer_type(other) == wanted and other.casefold() not in context:
            return other
    return None


def synthetic_answer(question, pool, rng, kind="mixed"):
    """Add a sentence that answers the same question differently; both answers are gold (5.3).

    paper: a language model wrote it. here: "evidence" is the sentence around the gold answer with
    another answer of the same type from `pool` in its place; "template" is "<the question's words>
    is <answer>"; "mixed" draws one of the two. It goes into a random slot, its answer is listed
    last. None where no sentence can be made: an unanswerable question, or no other answer.
    """
    golds, context = question.answers, question.context
    located = all(gold.start != UNLOCATED for gold in golds)
    other = golds and located and _another(golds[0].text, question, pool, rng)
    if not other:
        return None
    bounds = [0, *(match.end() for match in SENTENCE_END.finditer(context)), len(context)]
    if kind == "template" or (kind == "mixed" and rng.random() < 0.5):
        before, after = question.question.strip().rstrip("? ") + " is ", "."
    else:
        start, end = golds[0].start, golds[0].start + len(golds[0].text)
        before = context[max(b for b in bounds if b <= start) : start]
        after = context[end : min(b for b in bounds if b >= end)].rstrip()
        after += "" if (other + after)[-1] in '.!?"”)' else "."
    slots = [b for b in bounds if not any(a.start < b < a.start + len(a.text) for a in golds)]
    slot = slots[int(rng.random() * len(slots))]
    before, after = (" " + before, after) if slot == len(context) else (before, after + " ")
    added = before + other + after
    answers = [Answer(a.text, a.start + len(added) * (a.start >= slot)) for a in golds]
    answers.append(Answer(other, slot + len(before)))
    return replace(question, context=context[:slot] + added + context[slot:], answers=answers)


def _mislead(question, asked, pool, rng, negated):
    """Append the words of `asked` as a statement with a fake answer in the wh-phrase's place."""
    fake = question.answers and _another(question.answers[0].text, question, pool, rng)
    phrase = WH_PHRASE.search(asked)
    if not fake or not phrase:
        return None
    sentence = asked[: phrase.start()].lstrip() + fake + (phrase[1] or "")
    if negated:
        sentence = sentence + " not" if phrase[1] else "not " + sentence
    sentence += asked[phrase.end() :].rstrip("? ") + "."
    return replace(question, context=f"{question.context} {sentence[0].upper()}{sentence[1:]}")


def negate(question, pool, rng):
    """Negation-like attack: "Where was Ada born?" appended as "Oslo was not Ada born." (6).

    paper: "not" before the question's first adjective. here: after its auxiliary, without a tagger.
    """
    return _mislead(question, question.question, pool, rng, negated=True)


def add_one_sentence(question, pool, rng):
    """AddOneSent-like attack: a statement with a fake answer, about other entities, appended (6).

    Names and numbers are exchanged for answers of the pool; None for a question without any.
    """
    asked = question.question
    changed = ENTITY.sub(lambda m: _another(m[0], question, pool, rng) or m[0], asked)
    return _mislead(question, changed, pool, rng, negated=False) if changed != asked else None


ATTACKS = {"addonesent": add_one_sentence, "negation": negate}


def attack(questions, kind, seed=0):
    """The questions that one of ATTACKS or "information-seeking" can change, changed."""
    if kind == "information-seeking":
        return rematch(questions)
    pool, rng = answer_pool(questions), random.Random(seed)
    return list(filter(None, (ATTACKS[kind](question, pool, rng) for question in questions)))


def add_synthetic_answers(questions, share, seed=0, kind="mixed"):
    """The questions, a share of the answerable ones with a synthetic answer."""
    pool, rng = answer_pool(questions), random.Random(seed)
    return [
        (q.answers and rng.random() < share and synthetic_answer(q, pool, rng, kind)) or q
        for q in questions
    ]


def rematch(questions):
    """Information-seeking unanswerables: move questions to another paragraph of their article (6).

    Each answerable one goes, without its answers, to the paragraph most similar to it by TF-IDF
    among those that hold none of their texts.
    """
    holders, moved = defaultdict(dict), []  # (title, word): the paragraphs that hold the word
    for q in questions:
        if q.context not in holders[q.title, ""]:  # "": all paragraphs of the article
            for word in {"", *re.findall(r"\w+", q.context.casefold())}:
                holders[q.title, word][q.context] = None
    for q in (q for q in questions if q.answers):
        scores = dict.fromkeys(holders[q.title, ""], 0.0)
        for word in sorted({*re.findall(r"\w+", q.question.casefold())}):
            for context in (found := holders.get((q.title, word), ())):
                scores[context] += math.log(len(scores) / len(found))
        for context in sorted(scores, key=scores.get, reverse=True):
            held = any(gold.text.casefold() in context.casefold() for gold in q.answers)
            if context != q.context and scores[context] > 0 and not held:
                moved.append(Question(q.id + "-rematched", q.question, context, [], q.title))
                break
    return moved


# --- The toy corpus --------------------------------------------------------------------------
FIRST_NAMES = "Ada Ben Cora Dan Elsa Finn Gina Hugo Ines Jack Kira Liam Mona Nils Olga Paul".split()
LAST_NAMES = "Abel Berg Cole Dunn Eads Ford Gray Hale Ivers Jung Kerr Lowe Moss Nash Orr".split()
CITIES = "Arlon Brast Celle Dorin Ettal Fargo Ghent Horst Imola Jena Kolm Lodi Mesa Narva".split()
FIRMS = "Acton Bolt Crest Delta Ember Flux Gamma Helix Icon Jolt Krona Lumen Mango Nova".split()
JOBS = "baker pilot nurse judge miner poet farmer tailor singer clerk mason weaver".split()
RELATIONS = {  # question: (answers, statements); {p} is a person, {a} the answer
    "Where was {p} born?": (CITIES, ["{p} was born in {a}", "{a} was the home town of {p}"]),
    "In which city did {p} study?": (CITIES, ["{p} studied in {a}", "{p} went to school in {a}"]),
    "Which company was founded by {p}?": (FIRMS, ["{p} founded {a}", "{a} was set up by {p}"]),
    "What was the job of {p}?": (JOBS, ["{p} worked as a {a}", "the job of {p} was {a}"]),
    "Who was the teacher of {p}?": ([], ["{p} was taught by {a}", "{a} was the teacher of {p}"]),
    "When did {p} die?": (range(1700, 1999), ["{p} died in {a}", "in {a} death came to {p}"]),
}


def toy_corpus(n, seed, kind="plain"):
    """n generated questions in the manner of SQuAD 2.0, four to a context of four or five facts.

    Most contexts state a relation once, names are near misses, and an unanswerable question asks
    for a stated relation of somebody else. `kind` is "plain" or one of attack (fewer than n).
    """
    rng, questions = random.Random(seed), []
    known = {}  # an article does not contradict itself
    while len(questions) < n:
        title = f"toy article {len(questions) // 40}"
        first, last = rng.sample(FIRST_NAMES, 2), rng.sample(LAST_NAMES, 3)
        people = [f"{first[0]} {last[0]}", f"{first[0]} {last[1]}", f"{first[1]} {last[0]}"]
        relations = rng.sample(list(RELATIONS), 4)
        relations += rng.sample(relations, rng.random() < 0.3)
        context, facts = "", {}
        for person, asked in dict.fromkeys((rng.choice(people), asked) for asked in relations):
            answers, statements = RELATIONS[asked]
            answers = answers or [f"{name} {last[2]}" for name in FIRST_NAMES]
            answer = known.setdefault((title, person, asked), str(rng.choice(answers)))
            sentence = rng.choice(statements).format(p=person, a=answer)
            facts[person, asked] = Answer(answer, len(context) + sentence.index(answer))
            context += sentence[0].upper() + sentence[1:] + ". "
        near = [(p, asked) for _, asked in facts for p in people if (p, asked) not in facts]
        for person, asked in rng.sample(list(facts), 2) + rng.sample(near, 2):
            key, text = f"toy-{seed}-{len(questions)}", asked.format(p=person)
            answers = [facts[person, asked]] if (person, asked) in facts else []
            questions.append(Question(key, text, context.strip(), answers, title))
    return questions if kind == "plain" else attack(questions, kind, seed)


TOY = {"toy-train": (16000, 0, "plain"), "toy-dev": (1000, 1, "plain")}  # toy_corpus's arguments
TOY |= {f"toy-{kind}": (1000, 1, kind) for kind in ("information-seeking", *ATTACKS)}
