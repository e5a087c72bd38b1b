"""SQuAD questions, the windows a model sees, synthetic answers, attacks, and a toy corpus.

Read this file first, then model.py, then robust_eqa.py. The road of the data:

    SQuAD JSON -> [Question] -> synthetic answers / attacks (still Questions) -> Windows -> Batch

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
    """A gold answer: its text and the offset in the context at which it stands."""

    text: str
    start: int


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
    if path_or_name in TOY:
        return toy_corpus(*TOY[path_or_name])
    path, place, questions, moved, lost = Path(path_or_name), "the file", {}, 0, {}
    if path_or_name in DATASETS and not path.exists():
        path = fetch(path_or_name)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
        for place, title, context, row in _rows(text):
            key, question, answers = str(row["id"]), row["question"], row["answers"]
            place = f"question {key!r}"
            if isinstance(answers, dict):  # the Hub's object of lists
                pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
            else:
                pairs = [(answer["text"], answer["answer_start"]) for answer in answers]
            for part in (key, question, context, *(text for text, _ in pairs)):
                if not isinstance(part, str) or not part.strip() or re.search(SURROGATE, part):
                    raise ValueError(f"{part!a:.40} is empty, no text or broken Unicode")
            if key in questions:
                raise ValueError("this id occurs twice")
            if pairs and row.get("is_impossible"):
                raise ValueError("it is impossible but has answers")
            golds = [Answer(text, locate(context, text, int(start))) for text, start in pairs]
            questions[key] = Question(key, question, context, golds, title)
            for (_, start), gold in zip(pairs, golds):
                moved += gold.start not in (int(start), UNLOCATED)
                lost |= {key: None} if gold.start == UNLOCATED else {}
            if (context, question) == ("Text", "Question"):
                print(f"{path}: {place} looks like column headers; it is kept", file=sys.stderr)
        if not questions:
            raise ValueError("it holds no questions")
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
    ) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        where = f"{path}: {place} cannot be read ({reason})"
        raise InputError(f"{where}; see Formats in README.md, or give a name from there") from None
    if moved:
        print(f"{path}: {moved} answers were found elsewhere than at their offset", file=sys.stderr)
    if lost:
        print(f"{path}: {some_ids(lost)} have an answer not in the context", file=sys.stderr)
    return list(questions.values())


SURROGATE = "[\ud800-\udfff]"


def _rows(text):
    """Yield (place, title, context, row) for nested SQuAD, flat rows and JSON Lines alike."""
    try:
        payload = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        payload = [json.loads(line) for line in text.split("\n") if line.strip()]
    if isinstance(payload, dict):
        payload = payload["data"] if "data" in payload else [payload]
    for a, article in enumerate(payload):
        title = str(article.get("title") or "")
        if "paragraphs" not in article:
            yield f"data[{a}]", title, article["context"], article
        for p, paragraph in enumerate(article.get("paragraphs", ())):
            for q, row in enumerate(paragraph["qas"]):
                place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                yield (
                    place,
                    title,
                    paragraph["context"],
                    {"answers": []} | row if row.get("is_impossible") else row,
                )


def some_ids(ids):
    """How many, and at most five of them.

    >>> some_ids(list("abcdefg"))
    '7 questions (a, b, c, d, e, ...)'
    """
    return f"{len(ids)} questions ({', '.join(list(ids)[:5])}{', ...' if len(ids) > 5 else ''})"


def write_questions(questions, path):
    """Write questions as SQuAD v2.0 JSON, in their order, gzipped if the name ends in .gz."""
    data = []
    for q in questions:
        if not data or data[-1]["title"] != q.title:
            data.append({"title": q.title, "paragraphs": []})
        paragraphs = data[-1]["paragraphs"]
        if not paragraphs or paragraphs[-1]["context"] != q.context:
            paragraphs.append({"context": q.context, "qas": []})
        answers = [{"text": a.text, "answer_start": a.start} for a in q.answers]
        row = {"id": q.id, "question": q.question, "answers": answers, "is_impossible": not answers}
        paragraphs[-1]["qas"].append(row)
    content = json.dumps({"version": "v2.0", "data": data}).encode()
    write_file(path, gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def write_file(path, content):
    """Write bytes whole or not at all: to a temporary name beside the file, then renamed."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is a directory or a device")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error}); choose another place") from None


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
    if path.exists():
        return path
    print(f"fetching {DATASETS[name]} into {path.parent}", file=sys.stderr)
    try:
        with urllib.request.urlopen(DATASETS[name], timeout=60) as response:
            content = response.read()  # raises where it breaks off
        if name in SHA256 and hashlib.sha256(content).hexdigest() != SHA256[name]:
            raise OSError("its checksum is wrong")
    except (OSError, HTTPException) as error:
        reason = f"cannot be fetched ({error}); put that file at {path}"
        raise InputError(f"{DATASETS[name]} {reason}") from None
    write_file(path, content)
    return path


# --- Windows ---------------------------------------------------------------------------------

ANSWER, ELSEWHERE, NO_ANSWER = range(3)  # labels: a gold inside, golds elsewhere only, no golds


@dataclass(frozen=True, slots=True)
class Window:
    """A question and the context tokens start..stop-1; the arrays are shared between windows."""

    question_index: int
    question: Question
    question_ids: np.ndarray
    context_ids: np.ndarray  # of the whole context
    context_offsets: np.ndarray  # (tokens, 2) of the whole context
    golds: np.ndarray  # (k, 2) inclusive context tokens of every gold, -1 where it has none
    start: int
    stop: int
    layout: list  # see pair_layout
    mark_overlap: bool  # context tokens that occur in the question get segment 2 (toy model only)

    def __len__(self):
        specials = sum(len(ids) for ids, *_ in self.layout)
        return specials + len(self.question_ids) + self.stop - self.start

    @property
    def context_slice(self):
        """The positions that hold context."""
        stop = len(self) - len(self.layout[2][0])
        return slice(stop - (self.stop - self.start), stop)

    def arrays(self):
        """-> token ids (T,), segment ids (T,), inclusive positions (k, 2) of the golds inside."""
        (before, *s0), (between, *s1), (after, *s2) = self.layout
        context = self.context_ids[self.start : self.stop]
        parts = before, self.question_ids, between, context, after
        segments = np.repeat([*s0, *s1, s2[0]], [len(part) for part in parts])
        if self.mark_overlap:
            segments[self.context_slice][np.isin(context, self.question_ids)] = 2
        inside = (self.golds[:, 0] >= self.start) & (self.golds[:, 1] < self.stop)
        spans = self.golds[inside] - self.start + self.context_slice.start
        return np.concatenate(parts), segments, spans

    input_ids = property(lambda self: self.arrays()[0].tolist())
    segment_ids = property(lambda self: self.arrays()[1].tolist())
    answer_spans = property(lambda self: [tuple(span) for span in self.arrays()[2].tolist()])

    @property
    def offsets(self):
        """One (start, end) per position, (0, 0) outside the context."""
        pairs = [(0, 0)] * len(self)
        pairs[self.context_slice] = map(
            tuple, self.context_offsets[self.start : self.stop].tolist()
        )
        return pairs

    @property
    def label(self):
        """ANSWER, ELSEWHERE or NO_ANSWER."""
        return ANSWER if self.answer_spans else ELSEWHERE if len(self.golds) else NO_ANSWER

    def text(self, start, end):
        """The text of context positions start..end, inclusive."""
        shift = self.start - self.context_slice.start
        first, last = self.context_offsets[start + shift, 0], self.context_offsets[end + shift, 1]
        return self.question.context[first:last].strip()


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


def collate(windows, device="cpu"):
    """[Window] -> Batch; the loop runs over windows, not tokens."""
    shape = len(windows), max(map(len, windows))
    ids, segments = np.zeros((2, *shape), np.int64)
    start_labels, end_labels = np.zeros((2, *shape), np.float32)
    mask, context_mask = np.zeros((2, *shape), bool)
    positions = np.zeros((2, len(windows)), np.int64)
    for row, window in enumerate(windows):
        length = len(window)
        ids[row, :length], segments[row, :length], spans = window.arrays()
        mask[row, :length] = context_mask[row, window.context_slice] = True
        start_labels[row, spans[:, 0]] = end_labels[row, spans[:, 1]] = 1
        if len(spans) and window.start <= window.golds[0, 0] and window.golds[0, 1] < window.stop:
            positions[:, row] = spans[0]
    arrays = ids, segments, mask, context_mask, start_labels, end_labels, *positions
    return Batch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))


def pair_layout(tokenizer):
    """[(special ids, their segment, segment of what follows)] before, between and after a pair."""
    encoding = tokenizer.encode("a", "b")
    runs = [
        list(run) for _, run in groupby(range(len(encoding)), encoding.sequence_ids.__getitem__)
    ]
    if [encoding.sequence_ids[run[0]] for run in runs] != [None, 0, None, 1, None]:
        raise InputError(
            "the tokenizer does not put special tokens around question and context; give its "
            "tokenizer.json a post-processor for pairs"
        )
    segments = [encoding.type_ids[run[0]] for run in runs] + [0]
    return [(np.array([encoding.ids[t] for t in runs[k]]), *segments[k : k + 2]) for k in (0, 2, 4)]


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
    contexts = dict.fromkeys(q.context for q in questions)  # about seven questions share one
    texts = list(contexts)
    for k in range(0, len(texts), 1000):  # in parts: an Encoding takes about 150 bytes a token
        part = tokenizer.encode_batch(texts[k : k + 1000], add_special_tokens=False)
        for text, encoding in zip(texts[k:], part):
            offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            contexts[text] = np.array(encoding.ids, np.int32), offsets
    encoded = tokenizer.encode_batch_fast([q.question for q in questions], add_special_tokens=False)
    windows = []
    for index, (question, encoding) in enumerate(zip(questions, encoded)):
        ids, (context_ids, offsets) = np.array(encoding.ids, np.int32), contexts[question.context]
        room = max_length - len(ids) - sum(len(special) for special, *_ in layout)
        if room <= stride:
            raise InputError(
                f"question {question.id!r} has {len(ids)} tokens and leaves room for {max(room, 0)}"
                f" context tokens in a window of {max_length}, but the overlap (stride) of {stride}"
                " needs more; shorten it, or change max_length or stride"
            )
        # A gold runs from the first token that ends after its start to the last that starts before
        # its end. One without a token (a zero-width character, say) has them the wrong way round.
        starts = np.array([answer.start for answer in question.answers], int)
        ends = starts + [len(answer.text) for answer in question.answers]
        first = np.searchsorted(offsets[:, 1], starts, side="right")
        last = np.searchsorted(offsets[:, 0], ends, side="left") - 1
        golds = np.where((starts != UNLOCATED) & (first <= last), (first, last), -1).T
        for start in range(0, max(1, len(context_ids) - stride), room - stride):
            stop = min(start + room, len(context_ids))
            shared = question, ids, context_ids, offsets, golds
            windows.append(Window(index, *shared, start, stop, layout, mark_overlap))
    return windows


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
    r"(?<!\b[A-Z])(?<!\b(?:Mr|Dr|St|Jr|Sr|vs|No|Mt))(?<!\bMrs)"  # initials, abbreviations
    r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])"
)
ENTITY = re.compile(r"(?<=\s)[A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*|\b\d[\d,.]*\b")
WH_WORDS = "who whom when where why what which whose how".split()
AUXILIARIES = "is are was were do does did can could will would has have had should may".split()


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
    kinds = ("year", r"(1\d|20)\d\d$"), ("number", r".*\d"), ("name", r".*\b[A-Z]"), ("words", "")
    kind = next(kind for kind, pattern in kinds if re.match(pattern, text, re.DOTALL))
    return kind, min(len(text.split()), 4)


def _another(text, question, pool, rng):
    """An answer of the pool with the type of `text` that the context does not hold, or None."""
    context, wanted = question.context.casefold(), answer_type(text)
    for _ in range(300 if pool else 0):
        other = pool[int(rng.random() * len(pool))]
        if answer_type(other) == wanted and other.casefold() not in context:
            return other
    return None


def _insert(question, sentence, slot):
    """The question with a sentence put into its context at an offset; golds after it move along."""
    context = question.context
    text = sentence + " " if slot < len(context) else " " + sentence
    moved = [Answer(a.text, a.start + len(text) * (a.start >= slot)) for a in question.answers]
    return replace(question, context=context[:slot] + text + context[slot:], answers=moved)


def synthetic_answer(question, pool, rng, kind="mixed"):
    """Add a sentence that answers the same question differently; both answers are gold (5.3).

    paper: a language model wrote the sentence. here: kind "evidence" is the sentence around the
    gold answer with another answer of the same type in its place; kind "template" is "<the
    question's words> is <answer>"; "mixed" draws one of the two. The sentence goes into a random
    slot; the new answer is listed last. `pool` is a list of answer texts, `rng` has random().
    None where no sentence can be made: an unanswerable question, or no other answer.
    """
    golds, context = question.answers, question.context
    located = golds and all(answer.start != UNLOCATED for answer in golds)
    other = _another(golds[0].text, question, pool, rng) if located else None
    if other is None:
        return None
    bounds = [*sentence_starts(context), len(context)]
    if kind == "template" or (kind == "mixed" and rng.random() < 0.5):
        before, after = question.question.strip().rstrip("? ") + " is ", "."
    else:
        start, end = golds[0].start, golds[0].start + len(golds[0].text)
        before = context[max(b for b in bounds if b <= start) : start]
        after = context[end : min(b for b in bounds if b >= end)].rstrip()
        after += "" if (other + after)[-1] in '.!?"”)' else "."
    slots = [b for b in bounds if not any(a.start < b < a.start + len(a.text) for a in golds)]
    slot = slots[int(rng.random() * len(slots))]
    changed = _insert(question, before + other + after, slot)
    start = slot + len(before) + (slot == len(context))  # a space precedes an appended sentence
    return replace(changed, answers=[*changed.answers, Answer(other, start)])


def _statement(question, fake, negated):
    """The question's words as a statement with `fake` in place of the wh-phrase, or None.

    >>> _statement("In what country is Normandy located?", "Peru", negated=False)
    'In Peru is Normandy located.'
    >>> _statement("Who built the dome?", "Ada", negated=True)
    'Not Ada built the dome.'
    """
    words = question.strip().rstrip("? ").split()
    at = next((k for k, word in enumerate(words) if word.lower() in WH_WORDS), None)
    if at is None:
        return None
    end = at + 1 + (words[at].lower() == "how")  # "how many"
    if words[at].lower() in ("what", "which", "whose", "how"):  # "what year", up to the auxiliary
        ahead = (k for k in range(at + 1, len(words[: at + 5])) if words[k].lower() in AUXILIARIES)
        end = next(ahead, end)
    before, rest = words[:at], words[end:]
    if negated and rest and rest[0].lower() in AUXILIARIES:
        rest.insert(1, "not")
    elif negated:
        before = ["not", *before]
    sentence = " ".join([*before, fake, *rest])
    return sentence[0].upper() + sentence[1:] + "."


def negate(question, pool, rng, text=None):
    """Negation-like attack: the question as a negated statement with a fake answer, appended (6).

    paper: "not" before the question's first adjective. here: after its auxiliary, which needs no
    tagger. None for an unanswerable question or one without a question word.
    """
    fake = question.answers and _another(question.answers[0].text, question, pool, rng)
    sentence = fake and _statement(text or question.question, fake, negated=text is None)
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
    return negate(question, pool, rng, text) if text != question.question else None


ATTACKS = {"addonesent": add_one_sentence, "negation": negate}


def answer_pool(questions):
    """The texts of all first gold answers: what synthetic and fake answers are drawn from."""
    return [question.answers[0].text for question in questions if question.answers]


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
    chosen = (bool(q.answers) and rng.random() < share for q in questions)
    return [c and synthetic_answer(q, pool, rng, kind) or q for q, c in zip(questions, chosen)]


def rematch(questions):
    """Information-seeking unanswerables: move questions to another paragraph of their article (6).

    Each answerable question goes, without answers, to the paragraph most similar to it by TF-IDF
    among those that hold none of its answers' texts; ids get the suffix "-rematched".
    """
    articles, moved = defaultdict(dict), []  # title -> {context: its words}
    for q in questions:
        if q.context not in articles[q.title]:
            articles[q.title][q.context] = set(re.findall(r"\w+", q.context.casefold()))
    found = {
        title: Counter(w for words in a.values() for w in words) for title, a in articles.items()
    }
    for q in questions:
        asked = set(re.findall(r"\w+", q.question.casefold()))
        idf = {w: math.log(len(articles[q.title]) / n) for w in asked if (n := found[q.title][w])}
        golds = [answer.text.casefold() for answer in q.answers]
        scores = {
            context: math.fsum(idf[word] for word in asked & words)
            for context, words in articles[q.title].items()
            if golds and context != q.context
        }
        for context in sorted(scores, key=scores.get, reverse=True):
            if scores[context] > 0 and not any(gold in context.casefold() for gold in golds):
                moved.append(Question(q.id + "-rematched", q.question, context, [], q.title))
                break
    return moved


# --- The toy corpus --------------------------------------------------------------------------

FIRST_NAMES = "Ada Ben Cora Dan Elsa Finn Gina Hugo Ines Jack Kira Liam Mona Nils Olga Paul".split()
LAST_NAMES = "Abel Berg Cole Dunn Eads Ford Gray Hale Ivers Jung Kerr Lowe Moss Nash Orr".split()
CITIES = "Arlon Brast Celle Dorin Ettal Fargo Ghent Horst Imola Jena Kolm Lodi Mesa Narva".split()
FIRMS = "Acton Bolt Crest Delta Ember Flux Gamma Helix Icon Jolt Krona Lumen Mango Nova".split()
JOBS = "baker pilot nurse judge miner poet farmer tailor singer clerk mason weaver".split()
RELATIONS = [  # (answers, statements, question): {p} is a person, {a} the answer
    (CITIES, ["{p} was born in {a}", "{a} was the home town of {p}"], "Where was {p} born?"),
    (CITIES, ["{p} studied in {a}", "{p} went to school in {a}"], "In which city did {p} study?"),
    (FIRMS, ["{p} founded {a}", "{a} was set up by {p}"], "Which company was founded by {p}?"),
    (JOBS, ["{p} worked as a {a}", "the job of {p} was {a}"], "What was the job of {p}?"),
    (None, ["{p} was taught by {a}", "{a} was the teacher of {p}"], "Who was the teacher of {p}?"),
    (range(1700, 1999), ["{p} died in {a}", "in {a} death came to {p}"], "When did {p} die?"),
]


def toy_corpus(n, seed, kind="plain"):
    """n generated questions in the manner of SQuAD 2.0, four to a context of four or five facts.

    As in SQuAD, most contexts state a relation once, names are near misses of one another, and an
    unanswerable question asks for a stated relation of somebody else. `kind` is "plain" or one of
    attack; those yield fewer than n.
    """
    rng, questions = random.Random(seed), []
    while len(questions) < n:
        title = f"toy article {len(questions) // 40}"
        if len(questions) % 40 == 0:
            known = {}  # an article does not contradict itself
        first, last = rng.sample(FIRST_NAMES, 2), rng.sample(LAST_NAMES, 3)
        people = [f"{first[0]} {last[0]}", f"{first[0]} {last[1]}", f"{first[1]} {last[0]}"]
        relations = rng.sample(range(len(RELATIONS)), 4)
        relations += rng.sample(relations, rng.random() < 0.3)
        context, facts = "", {}
        for person, r in dict.fromkeys((rng.choice(people), r) for r in relations):
            answers, statements, _ = RELATIONS[r]
            answers = answers or [f"{name} {last[2]}" for name in FIRST_NAMES]
            answer = known.setdefault((person, r), str(rng.choice(answers)))
            before, after = rng.choice(statements).format(p=person, a="|").split("|")
            facts[person, r] = Answer(answer, len(context) + len(before))
            sentence = before + answer + after + ". "
            context += sentence[0].upper() + sentence[1:]
        near = [(person, r) for _, r in facts for person in people if (person, r) not in facts]
        for person, r in rng.sample(list(facts), 2) + rng.sample(near, 2):
            key, text = f"toy-{seed}-{len(questions)}", RELATIONS[r][2].format(p=person)
            answers = [facts[person, r]] if (person, r) in facts else []
            questions.append(Question(key, text, context.strip(), answers, title))
    return questions if kind == "plain" else attack(questions, kind, seed)


TOY = {  # name: arguments of toy_corpus
    "toy-train": (16000, 0, "plain"),
    "toy-dev": (1000, 1, "plain"),
    "toy-information-seeking": (1000, 1, "information-seeking"),
    "toy-addonesent": (1000, 1, "addonesent"),
    "toy-negation": (1000, 1, "negation"),
}
