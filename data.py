"""SQuAD questions, the windows a model sees, synthetic answers, attacks, and a toy corpus.

Read this file first, then model.py, then robust_eqa.py. The road of the data:

    SQuAD JSON -> [Question] -> synthetic answers / attacks (still Questions) -> Windows -> Batch

Letters: B windows in a batch, T positions in a window. A *position* counts tokens inside a window,
an *offset* counts characters inside a context. Paper sections are those of Tran & Kretchmar (2024).
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
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

# --- Questions -------------------------------------------------------------------------------


class InputError(ValueError):
    """What a user handed us cannot be used; the message is one sentence that says what to do."""


UNLOCATED = -1  # Answer.start of an answer whose text cannot be found in the context


@dataclass(frozen=True)
class Answer:
    """A gold answer: its text and the character offset in the context at which it stands."""

    text: str
    start: int

    @property
    def end(self):
        return self.start + len(self.text)


@dataclass(frozen=True)
class Question:
    """A question about a context; no answers means that it is unanswerable."""

    id: str
    question: str
    context: str
    answers: list[Answer]
    title: str = ""


def locate(context, text, start):
    """Offset of an answer: `start` if the text stands there, else its only occurrence.

    >>> locate("a cat, a dog", "cat", 2), locate("a cat, a dog", "dog", 0), locate("aa", "a", 9)
    (2, 9, -1)
    """
    if start >= 0 and context.startswith(text, start):
        return start
    first = context.find(text)
    return first if first >= 0 and context.find(text, first + 1) < 0 else UNLOCATED


def read_questions(path_or_name):
    """Read SQuAD v1.1 or v2.0 JSON, the Hub's flat JSON or JSON Lines, gzipped or not, or a name.

    A name is one of DATASETS (fetched once) or of TOY (generated). What is odd but usable is said
    on stderr. Raises InputError, naming file and place, where the file cannot be used.
    """
    name = str(path_or_name)
    if name in TOY:
        return toy_corpus(*TOY[name])
    path = fetch(name) if name in DATASETS and not Path(name).exists() else Path(name)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        names = ", ".join([*TOY, *DATASETS])
        raise InputError(f"{path}: no such file; give a SQuAD file or one of: {names}") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); is it complete, and UTF-8?") from None
    questions, moved, lost = {}, 0, []
    for where, title, context, row in _rows(_parse(text, path), path):
        key = str(_field(row, "id", (str, int), where))
        where = f"{path}: question {key!r}"
        if key in questions:
            raise InputError(f"{where} occurs twice; give every question an id of its own")
        question = _field(row, "question", str, where)
        if not question.strip() or not context.strip():
            raise InputError(f"{where} has an empty question or context; remove it or fill it in")
        answers = []
        for text, start in _answers(row, where):
            answers.append(Answer(text, locate(context, text, start)))
            moved += answers[-1].start not in (start, UNLOCATED)
            lost += [key] if answers[-1].start == UNLOCATED else []
        if row.get("is_impossible") is True and answers:
            raise InputError(f"{where} is_impossible but has answers; drop the one or the other")
        if (context, question) == ("Text", "Question"):
            say(f"{where} looks like a row of column headers; it is kept, as the file has it")
        questions[key] = Question(key, question, context, answers, title)
    if not questions:
        raise InputError(f"{path}: holds no questions; is it a SQuAD file?")
    if moved:
        say(f"{path}: {moved} answers were not at their offset and were found elsewhere")
    if lost:
        say(f"{path}: {len(lost)} answers cannot be located in their context {some_ids(lost)}")
    return list(questions.values())


def say(message):
    """Tell the user something without touching the output."""
    print(message, file=sys.stderr)


def some_ids(ids):
    """At most five ids, for a message.

    >>> some_ids(list("abcdefg"))
    '(ids a, b, c, d, e, ...)'
    """
    return f"(ids {', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})"


def _parse(text, path):
    """JSON or JSON Lines -> the rows or articles."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.split("\n") if line.strip()]
        try:
            payload = [json.loads(line) for line in lines] if len(lines) > 1 else None
        except (ValueError, RecursionError):
            payload = None
        if payload is None:
            raise InputError(f"{path}: is not JSON or JSON Lines ({error}); repair it") from None
    if isinstance(payload, dict):
        payload = payload.get("data", [payload] if "context" in payload else None)
    if not isinstance(payload, list):
        raise InputError(f'{path}: has no list under "data"; give SQuAD JSON or JSON Lines')
    return payload


def _field(record, key, kind, where):
    """record[key], of the right type and free of lone surrogates."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: {key!r} is missing or of the wrong type; see the README")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{where}: {key!r} holds half a surrogate pair; repair it") from None
    return value


def _rows(articles, path):
    """Yield (place, title, context, row) for nested SQuAD and for flat rows alike."""
    for a, article in enumerate(articles):
        where = f"{path}: data[{a}]"
        if not isinstance(article, dict) or "paragraphs" not in article:
            context = _field(article, "context", str, where)
            yield where, str(article.get("title", "")), context, article
            continue
        for p, paragraph in enumerate(_field(article, "paragraphs", list, where)):
            here = f"{where}.paragraphs[{p}]"
            context = _field(paragraph, "context", str, here)
            for q, row in enumerate(_field(paragraph, "qas", list, here)):
                yield f"{here}.qas[{q}]", str(article.get("title", "")), context, row


def _answers(row, where):
    """[(text, start)] from SQuAD's list of objects or the Hub's object of lists."""
    if row.get("is_impossible") is True and "answers" not in row:
        return []
    answers = _field(row, "answers", (list, dict), where)
    if isinstance(answers, dict):
        texts, starts = (_field(answers, key, list, where) for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise InputError(f"{where}: 'text' and 'answer_start' differ in length; mend one")
        answers = [{"text": t, "answer_start": s} for t, s in zip(texts, starts)]
    pairs = []
    for answer in answers:
        text = _field(answer, "text", str, where)
        start = str(_field(answer, "answer_start", (str, int), where))
        if not re.fullmatch(r"-?[0-9]{1,12}", start):
            raise InputError(f"{where}: 'answer_start' {start!r} is not a whole number; mend it")
        if not text.strip():
            raise InputError(f"{where}: an answer is empty; unanswerable is written 'answers': []")
        pairs.append((text, int(start)))
    return pairs


def write_questions(questions, path):
    """Write questions as SQuAD v2.0 JSON, in their order, gzipped if the name ends in .gz."""
    data = []
    for title, article in groupby(questions, lambda question: question.title):
        paragraphs = []
        for context, group in groupby(article, lambda question: question.context):
            qas = [
                {
                    "id": q.id,
                    "question": q.question,
                    "answers": [{"text": a.text, "answer_start": a.start} for a in q.answers],
                    "is_impossible": not q.answers,
                }
                for q in group
            ]
            paragraphs.append({"context": context, "qas": qas})
        data.append({"title": title, "paragraphs": paragraphs})
    content = json.dumps({"version": "v2.0", "data": data}).encode()
    write_file(path, gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def write_file(path, content):
    """Write bytes whole or not at all: to a temporary name beside the file, then renamed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another place") from None


SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
CODALAB = "https://worksheets.codalab.org/rest/bundles/{}/contents/blob/"
HUB = "https://huggingface.co/datasets/sonquoctran/{}/resolve/main/{}"
DATASETS = {
    "squad2-train": SQUAD + "train-v2.0.json",
    "squad2-dev": SQUAD + "dev-v2.0.json",
    "addonesent": CODALAB.format("0x3ac9349d16ba4e7bb9b5920e3b1af393"),
    "addsent": CODALAB.format("0xb765680b60c64d088f5daccac08b3905"),
    "multians": HUB.format("Multians", "train-squad-v2-multians.json"),
    "multians-agent": HUB.format("Multians", "train-squad-agent-multians.json"),
    "agent-train": HUB.format("SQuAD_AGent", "SQuAD_AGent_train.json"),
    "agent-dev": HUB.format("SQuAD_AGent", "SQuAD_AGent_dev.json"),
}
SHA256 = {  # not known for the others
    "squad2-train": "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002",
    "squad2-dev": "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
    "addonesent": "50420ac8d8b7547cd3715347c9a276802bc9466328ba0814adce4c20495e2889",
    "addsent": "40e3602aa5195cdacd03904a9c301ceb17ccf730cc32bd3ab998b66b4401e660",
}


def fetch(name):
    """Path of a dataset of DATASETS in the cache folder, fetched and checked the first time."""
    home = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~")}
    cache = os.environ.get("XDG_CACHE_HOME") or home.get(sys.platform, "~/.cache")
    cache = os.environ.get("EQA_CACHE") or os.path.join(cache, "robust-eqa")
    path = Path(cache).expanduser() / f"{name}.json"
    if not path.exists():
        say(f"fetching {DATASETS[name]} into {path.parent}")
        try:
            with urllib.request.urlopen(DATASETS[name], timeout=60) as response:
                content = response.read()
                if len(content) != int(response.headers.get("Content-Length", len(content))):
                    raise OSError("the transfer broke off")
            if hashlib.sha256(content).hexdigest() != SHA256.get(name, "") and name in SHA256:
                raise OSError("its checksum is wrong")
        except (OSError, HTTPException) as error:
            raise InputError(
                f"{DATASETS[name]} cannot be fetched ({error}); put that file at {path}"
            ) from None
        write_file(path, content)
    return path


# --- Windows ---------------------------------------------------------------------------------

ANSWER, ELSEWHERE, NO_ANSWER = range(3)  # a window's label: see Windows


class Window(NamedTuple):
    """One window as plain lists, for reading and for tests; training uses Windows.batch."""

    question_index: int
    input_ids: list[int]
    segment_ids: list[int]
    offsets: list[tuple[int, int]]  # (0, 0) outside the context
    context_slice: slice  # the positions that hold context
    answer_spans: list[tuple[int, int]]  # inclusive positions of the golds wholly inside
    label: int


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


@dataclass(frozen=True)
class Windows:
    """The windows of some questions: an array per question and per context, four per window set.

    A window is labelled ANSWER if at least one gold lies wholly inside it, ELSEWHERE if its
    question has golds but none inside, NO_ANSWER if its question has none.
    """

    questions: list[Question]
    question_ids: list[np.ndarray]  # token ids of each question
    golds: list[np.ndarray]  # (k, 2) of each question: inclusive context tokens, -1 if unlocatable
    context_index: np.ndarray  # (questions,)
    context_ids: list[np.ndarray]  # token ids of each different context
    context_offsets: list[np.ndarray]  # (tokens, 2) of each: character offsets
    layout: list  # [(special ids, their segment, segment of what follows)]: see pair_layout
    mark_overlap: bool  # context tokens that occur in the question get segment 2 (toy model only)
    question_index: np.ndarray  # (W,) the question of each window
    starts: np.ndarray  # (W,) the context token each window begins with
    stops: np.ndarray  # (W,) one past the one it ends with
    lengths: np.ndarray  # (W,) its positions

    def __len__(self):
        return len(self.starts)

    def context_position(self, i):
        """The position at which window i's context begins."""
        return int(self.lengths[i] - (self.stops[i] - self.starts[i]) - len(self.layout[2][0]))

    def answer_spans(self, i):
        """(k, 2) inclusive positions of the golds that lie wholly inside window i."""
        golds = self.golds[self.question_index[i]]
        inside = (golds[:, 0] >= self.starts[i]) & (golds[:, 1] < self.stops[i])
        return golds[inside] - self.starts[i] + self.context_position(i)

    def __getitem__(self, i):
        ids, segments = (x[0].tolist() for x in self.batch([i])[:2])
        first, spans = self.context_position(i), self.answer_spans(i).tolist()
        q = int(self.question_index[i])
        context = self.context_offsets[self.context_index[q]][self.starts[i] : self.stops[i]]
        offsets = [(0, 0)] * len(ids)
        offsets[first : first + len(context)] = map(tuple, context.tolist())
        label = ANSWER if spans else ELSEWHERE if self.questions[q].answers else NO_ANSWER
        where = slice(first, first + len(context))
        return Window(q, ids, segments, offsets, where, [tuple(s) for s in spans], label)

    def batch(self, indices):
        """Windows -> Batch; the loop runs over windows, not tokens."""
        size, width = len(indices), int(self.lengths[indices].max())
        ids, segments, start_labels, end_labels = np.zeros((4, size, width), np.int64)
        mask, context_mask = np.zeros((2, size, width), bool)
        positions = np.zeros((2, size), np.int64)
        (before, *s0), (between, *s1), (after, *s2) = self.layout
        for row, i in enumerate(indices):
            q, length, first = self.question_index[i], self.lengths[i], self.context_position(i)
            question = self.question_ids[q]
            context = self.context_ids[self.context_index[q]][self.starts[i] : self.stops[i]]
            parts = (before, question, between, context, after)
            ids[row, :length] = np.concatenate(parts)
            segments[row, :length] = np.repeat([*s0, *s1, s2[0]], [len(part) for part in parts])
            mask[row, :length] = True
            context_mask[row, first : first + len(context)] = True
            if self.mark_overlap:
                segments[row, first : first + len(context)][np.isin(context, question)] = 2
            spans = self.answer_spans(i)
            start_labels[row, spans[:, 0]] = 1
            end_labels[row, spans[:, 1]] = 1
            gold = self.golds[q][:1] - self.starts[i] + first  # the first listed one
            if len(spans) and (gold == spans[0]).all():
                positions[:, row] = spans[0]
        arrays = map(
            torch.from_numpy,
            (ids, segments, mask, context_mask, start_labels, end_labels, *positions),
        )
        return Batch(*arrays)

    def text(self, i, start, end):
        """The text of context positions start..end (inclusive) of window i."""
        q, shift = self.question_index[i], self.starts[i] - self.context_position(i)
        offsets = self.context_offsets[self.context_index[q]]
        return (
            self.questions[q].context[offsets[start + shift, 0] : offsets[end + shift, 1]].strip()
        )


def pair_layout(tokenizer):
    """How the tokenizer joins a pair: the special ids before, between and after, with segments."""
    encoding = tokenizer.encode("a", "b")
    runs = [
        (part, [(encoding.ids[k], encoding.type_ids[k]) for k in run])
        for part, run in groupby(range(len(encoding)), lambda k: encoding.sequence_ids[k])
    ]
    if [part for part, _ in runs] != [None, 0, None, 1, None]:
        raise InputError(
            "the tokenizer does not put special tokens around question and context; "
            "its tokenizer.json needs a post-processor for pairs"
        )
    segments = [run[0][1] for _, run in runs] + [0]
    return [(np.array([i for i, _ in runs[k][1]]), *segments[k : k + 2]) for k in (0, 2, 4)]


def make_windows(questions, tokenizer, max_length=384, stride=128, mark_overlap=False):
    """Cut questions into windows of at most max_length tokens; neighbours share `stride` tokens.

    Equal, id for id and offset for offset, to pair truncation ("only_second"), but each context and
    each question is tokenized once. Answers become the smallest run of whole tokens that covers
    them. Raises InputError for a question that leaves no room for stride + 1 context tokens.
    """
    if tokenizer.truncation or tokenizer.padding:  # as some tokenizer.json files bring along
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
    layout = pair_layout(tokenizer)
    encoded = tokenizer.encode_batch_fast([q.question for q in questions], add_special_tokens=False)
    question_ids = [np.array(encoding.ids, np.int32) for encoding in encoded]
    taken = np.array([len(ids) for ids in question_ids]) + sum(len(ids) for ids, *_ in layout)
    room = max_length - taken  # for context tokens, in each window of a question
    if (room <= stride).any():
        q = int(np.argmax(room <= stride))
        raise InputError(
            f"question {questions[q].id!r} has {len(question_ids[q])} tokens and leaves room for "
            f"{max(room[q], 0)} context tokens in a window of {max_length}, but the overlap "
            f"(stride) of {stride} needs more; shorten it, or change max_length or stride"
        )
    contexts = {}  # text -> index; about seven questions share a context
    context_index = np.array([contexts.setdefault(q.context, len(contexts)) for q in questions])
    texts, context_ids, context_offsets = list(contexts), [], []
    for k in range(0, len(texts), 1000):  # in parts: an Encoding takes about 150 bytes a token
        for encoding in tokenizer.encode_batch(texts[k : k + 1000], add_special_tokens=False):
            context_ids.append(np.array(encoding.ids, np.int32))
            context_offsets.append(np.array(encoding.offsets, np.int32).reshape(-1, 2))

    # A gold runs from the first token that ends after its start to the last one that starts before
    # its end. One without a token (a zero-width character, say) has them the wrong way round.
    golds = []
    for question, c in zip(questions, context_index):
        chars = np.array([(a.start, a.end) for a in question.answers], np.int64).reshape(-1, 2)
        first = np.searchsorted(context_offsets[c][:, 1], chars[:, 0], side="right")
        last = np.searchsorted(context_offsets[c][:, 0], chars[:, 1], side="left") - 1
        unlocatable = (chars[:, 0] == UNLOCATED) | (first > last)
        golds.append(np.where(unlocatable[:, None], -1, np.stack([first, last], 1)))

    # Windows begin at 0, step, 2 * step, ... until one reaches the context's end.
    total = np.array([len(ids) for ids in context_ids])[context_index]
    step = room - stride
    counts = 1 + np.maximum(0, -(-(total - room) // step))
    question_index = np.repeat(np.arange(len(questions)), counts)
    order = np.arange(len(question_index)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = order * step[question_index]
    stops = np.minimum(starts + room[question_index], total[question_index])
    return Windows(
        questions,
        question_ids,
        golds,
        context_index,
        context_ids,
        context_offsets,
        layout,
        mark_overlap,
        question_index,
        starts,
        stops,
        lengths=stops - starts + taken[question_index],
    )


def length_bucketed(lengths, batch_size, rng):
    """Shuffled batches of indices of nearly equal length, so that little is padding.

    >>> length_bucketed(np.array([5, 9, 5, 9]), 2, np.random.default_rng(0))
    [array([0, 2]), array([1, 3])]
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return [batches[k] for k in rng.permutation(len(batches))]


# --- Synthetic answers and attacks: Question -> Question -------------------------------------

SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\b(?:Mr|Dr|St|Jr|Sr|vs|No|Mt))(?<!\bMrs)[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])"
)
ENTITY = re.compile(r"(?<=\s)[A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*|\b\d[\d,.]*\b")
WH_WORDS = set("who whom when where why what which whose how".split())
AUXILIARIES = set(
    "is are was were do does did can could will would has have had should may might must".split()
)


def sentence_starts(text):
    """Offsets at which the sentences of a text begin.

    >>> sentence_starts("Dr. Who left. J. Doe stayed! 3 came.")
    [0, 14, 29]
    """
    return [0, *(match.end() for match in SENTENCE_END.finditer(text))]


def answer_type(text):
    """The coarse type by which answers are exchanged for one another.

    >>> answer_type("1066"), answer_type("about 40 km"), answer_type("Ada Abel"), answer_type("red")
    (('year', 1), ('number', 3), ('name', 2), ('words', 1))
    """
    length = min(len(text.split()), 4)
    if re.fullmatch(r"1\d{3}|20\d\d", text):
        return "year", length
    if re.search(r"\d", text):
        return "number", length
    return "name" if re.search(r"\b[A-Z]", text) else "words", length


def _another(text, question, pool, rng):
    """An answer of the pool with the type of `text` that the context does not hold, or None."""
    context, wanted = question.context.casefold(), answer_type(text)
    for _ in range(300):
        other = pool[int(rng.random() * len(pool))]
        if answer_type(other) == wanted and other.casefold() not in context:
            return other
    return None


def answer_pool(questions):
    """The texts of all first gold answers: what synthetic and fake answers are drawn from."""
    return [question.answers[0].text for question in questions if question.answers]


def _insert(question, sentence, slot):
    """The question with a sentence put into its context at an offset; golds after it move along."""
    context = question.context
    text = sentence + " " if slot < len(context) else " " + sentence
    answers = [
        replace(a, start=a.start + len(text) if a.start >= slot else a.start)
        for a in question.answers
    ]
    return replace(question, context=context[:slot] + text + context[slot:], answers=answers)


def synthetic_answer(question, pool, rng, kind="evidence"):
    """Add a sentence that answers the same question differently; both answers are gold (5.3).

    paper: a language model wrote the sentence. here: kind "evidence" is the sentence around the
    gold answer with another answer of the same type in its place; kind "template" is "<the
    question's words> is <answer>"; "mixed" draws one of the two. The sentence goes into a random
    slot; the new answer is listed last. `pool` is a list of answer texts (answer_pool), `rng` has a
    random() method. None where no sentence can be made (no located answer, no other answer).
    """
    if not question.answers or any(answer.start == UNLOCATED for answer in question.answers):
        return None
    gold, context = question.answers[0], question.context
    bounds = [*sentence_starts(context), len(context)]
    other = _another(gold.text, question, pool, rng)
    if other is None:
        return None
    if kind == "template" or (kind == "mixed" and rng.random() < 0.5):
        before, after = question.question.strip().rstrip("? ") + " is ", "."
    else:
        before = context[max(b for b in bounds if b <= gold.start) : gold.start]
        after = context[gold.end : min(b for b in bounds if b >= gold.end)].rstrip()
        after += "" if (other + after).endswith((".", "!", "?", '"', "”", ")")) else "."
    slots = [b for b in bounds if not any(a.start < b < a.end for a in question.answers)]
    slot = slots[int(rng.random() * len(slots))]
    changed = _insert(question, before + other + after, slot)
    start = slot + len(before) + (slot == len(context))  # a space precedes the appended sentence
    return replace(changed, answers=[*changed.answers, Answer(other, start)])


def _statement(question, fake, negated):
    """The question's words as a statement with `fake` in place of the wh-phrase, or None.

    >>> _statement("In what country is Normandy located?", "Peru", negated=False)
    'In Peru is Normandy located.'
    >>> _statement("Who built the dome?", "Ada", negated=True)
    'Not Ada built the dome.'
    """
    words = question.strip().rstrip("?").split()
    at = next((k for k, word in enumerate(words) if word.lower() in WH_WORDS), None)
    if at is None:
        return None
    end = at + 1
    if words[at].lower() in ("what", "which", "whose", "how"):  # "what year", "how many people"
        ahead = range(at + 1, min(at + 5, len(words)))
        auxiliary = next((k for k in ahead if words[k].lower() in AUXILIARIES), None)
        end = auxiliary or at + 1 + (words[at].lower() == "how")
    before, rest = words[:at], words[end:]
    if negated and rest and rest[0].lower() in AUXILIARIES:
        rest.insert(1, "not")
    elif negated:
        before = ["not", *before]
    sentence = " ".join([*before, fake, *rest])
    return sentence[0].upper() + sentence[1:] + "."


def _attack(question, text, pool, rng, negated):
    """Append the question in `text` as a statement with a fake answer; golds stay as they are."""
    fake = question.answers and _another(question.answers[0].text, question, pool, rng)
    sentence = fake and _statement(text, fake, negated)
    return _insert(question, sentence, len(question.context)) if sentence else None


def add_one_sentence(question, pool, rng):
    """AddOneSent-like attack: a sentence like an answer to a question about other entities (6).

    The question's names and numbers are exchanged, the result is made a statement with a fake
    answer and appended. None for an unanswerable question or one without names and numbers.
    """

    def exchange(match):
        if match[0][0].isdigit():
            return re.sub(
                r"\d", lambda d: str((int(d[0]) + 1 + int(rng.random() * 8)) % 10), match[0]
            )
        return _another(match[0], question, pool, rng) or match[0]

    text = ENTITY.sub(exchange, question.question)
    return None if text == question.question else _attack(question, text, pool, rng, negated=False)


def negate(question, pool, rng):
    """Negation-like attack: the question as a negated statement with a fake answer, appended (6).

    paper: "not" before the question's first adjective. here: after its auxiliary, which needs no
    tagger. None for an unanswerable question or one without a question word.
    """
    return _attack(question, question.question, pool, rng, negated=True)


ATTACKS = {"addonesent": add_one_sentence, "negation": negate}


def attack(questions, kind, seed=0):
    """The attacked version of every question that can be attacked, under its own id.

    `kind` is one of ATTACKS, or "information-seeking": unanswerable by a change of paragraph.
    """
    if kind == "information-seeking":
        return rematch(questions)
    pool, rng = answer_pool(questions), random.Random(seed)
    attacked = (ATTACKS[kind](question, pool, rng) for question in questions)
    return [question for question in attacked if question]


def add_synthetic_answers(questions, share, seed=0, kind="mixed"):
    """Give a share of the answerable questions a synthetic answer, in place."""
    pool, rng = answer_pool(questions), random.Random(seed)
    return [
        q.answers and rng.random() < share and synthetic_answer(q, pool, rng, kind) or q
        for q in questions
    ]


def rematch(questions):
    """Information-seeking unanswerables: move questions to another paragraph of their article (6).

    Each answerable question goes, without answers, to the paragraph most similar to it by TF-IDF
    among those that hold none of its answers' texts; ids get the suffix "-rematched".
    """
    moved = []
    for title, group in groupby(sorted(questions, key=lambda q: q.title), lambda q: q.title):
        group = list(group)
        contexts = list(dict.fromkeys(q.context for q in group))
        folded = [context.casefold() for context in contexts]
        counts = [Counter(re.findall(r"\w+", context)) for context in folded]
        frequency = Counter(word for count in counts for word in count)
        postings = defaultdict(lambda: ([], []))  # word -> contexts that hold it, tf-idf weights
        for k, count in enumerate(counts):
            idf = {word: math.log(len(contexts) / frequency[word]) for word in count}
            norm = math.sqrt(sum((n * idf[word]) ** 2 for word, n in count.items())) or 1.0
            for word, n in count.items():
                postings[word][0].append(k)
                postings[word][1].append(n * idf[word] ** 2 / norm)
        postings = {word: tuple(map(np.array, lists)) for word, lists in postings.items()}
        for question in group:
            scores = np.zeros(len(contexts))
            for word in set(re.findall(r"\w+", question.question.casefold())) & postings.keys():
                scores[postings[word][0]] += postings[word][1]
            golds = [answer.text.casefold() for answer in question.answers]
            for k in np.argsort(-scores, kind="stable") if golds else ():
                if scores[k] <= 0:
                    break
                if contexts[k] != question.context and not any(g in folded[k] for g in golds):
                    key = question.id + "-rematched"
                    moved.append(Question(key, question.question, contexts[k], [], title))
                    break
    return moved


# --- The toy corpus --------------------------------------------------------------------------

FIRST_NAMES = "Ada Ben Cora Dan Elsa Finn Gina Hugo Ines Jack Kira Liam Mona Nils Olga Paul".split()
LAST_NAMES = "Abel Berg Cole Dunn Eads Ford Gray Hale Ivers Jung Kerr Lowe Moss Nash Orr".split()
CITIES = "Arlon Brast Celle Dorin Ettal Fargo Ghent Horst Imola Jena Kolm Lodi Mesa Narva".split()
FIRMS = "Acton Bolt Crest Delta Ember Flux Gamma Helix Icon Jolt Krona Lumen Mango Nova".split()
JOBS = "baker pilot nurse judge miner poet farmer tailor singer clerk mason weaver".split()
RELATIONS = [  # (answers, statements, questions): {p} is a person, {a} the answer
    (CITIES, ["{p} was born in {a}", "{a} was the home town of {p}"], ["Where was {p} born"]),
    (CITIES, ["{p} studied in {a}", "{p} went to school in {a}"], ["In which city did {p} study"]),
    (FIRMS, ["{p} founded {a}", "{a} was set up by {p}"], ["Which company was founded by {p}"]),
    (JOBS, ["{p} worked as a {a}", "the job of {p} was {a}"], ["What was the job of {p}"]),
    (None, ["{p} was taught by {a}", "{a} was the teacher of {p}"], ["Who was the teacher of {p}"]),
    (range(1700, 1999), ["{p} died in {a}", "in {a} death came to {p}"], ["When did {p} die"]),
]


def toy_corpus(n, seed, kind="plain"):
    """At least n generated questions in the manner of SQuAD 2.0, four to a context of five facts.

    As in SQuAD, most contexts state a relation once, two names in three are near misses of one
    another, and an unanswerable question asks for a stated relation of somebody else. `kind` is
    "plain", "information-seeking" (rematched) or an attack of ATTACKS; those yield fewer than n.
    """
    rng, questions = random.Random(seed), []
    while len(questions) < n:
        title, known = f"toy article {len(questions) // 40}", {}
        for _ in range(10):
            first, last = rng.sample(FIRST_NAMES, 2), rng.sample(LAST_NAMES, 3)
            people = [f"{first[0]} {last[0]}", f"{first[0]} {last[1]}", f"{first[1]} {last[0]}"]
            relations = rng.sample(range(len(RELATIONS)), 4)
            relations.append(rng.choice(relations) if rng.random() < 0.3 else -1)
            context, facts = "", {}
            for r in relations:
                person = rng.choice(people)
                if r < 0 or (person, r) in facts:
                    continue
                pool = RELATIONS[r][0] or [f"{x} {last[2]}" for x in FIRST_NAMES]
                answer = known.setdefault((person, r), str(rng.choice(pool)))
                before, after = rng.choice(RELATIONS[r][1]).format(p=person, a="\0").split("\0")
                sentence = before + answer + after + ". "
                facts[person, r] = Answer(answer, len(context) + len(before))
                context += sentence[0].upper() + sentence[1:]
            context = context.rstrip()
            asked = [(p, r) for p, r in facts]
            near = [(p, r) for _, r in facts for p in people if (p, r) not in facts]
            for person, r in rng.sample(asked, 2) + rng.sample(near, 2):
                text = rng.choice(RELATIONS[r][2]).format(p=person) + "?"
                answers = [facts[person, r]] if (person, r) in facts else []
                key = f"toy-{seed}-{len(questions)}"
                questions.append(Question(key, text, context, answers, title))
    return questions if kind == "plain" else attack(questions, kind, seed)


TOY = {  # name: arguments of toy_corpus
    "toy-train": (16000, 0, "plain"),
    "toy-dev": (1000, 1, "plain"),
    "toy-information-seeking": (1000, 1, "information-seeking"),
    "toy-addonesent": (1000, 1, "addonesent"),
    "toy-negation": (1000, 1, "negation"),
}
