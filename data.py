"""SQuAD questions, windows, synthetic answers, attacks, and a toy corpus. Read after robust_eqa.py.

    SQuAD JSON -> [Question] -> synthetic answers or attacks -> [Window] -> Batch

Letters: B windows in a batch, T positions in a window. A *position* counts tokens in a window, an
*offset* counts characters in a context. Sections are those of Tran & Kretchmar (2024).
"""

import gzip
import json
import random
import re
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

UNLOCATED = -1  # Answer.start of a text that cannot be placed


class InputError(Exception):
    """What a user gave cannot be used; the message says what to do."""


@contextmanager
def refusing(what):
    """Turn errors about a user's file, which libraries raise in many kinds, into an InputError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers panics with no Exception
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what}: {reason}") from None


@dataclass(frozen=True)
class Answer:
    text: str
    start: int  # offset


@dataclass(frozen=True)
class Question:
    id: str
    question: str
    context: str
    answers: list[Answer]  # none: the question is unanswerable
    title: str = ""  # of the article


def read_questions(path_or_name, labelled=True):
    """Questions of a SQuAD file or of TOY, or InputError. Unless labelled, answers stay unread."""
    if path_or_name in TOY:
        return toy_corpus(*TOY[path_or_name])
    path, questions = Path(path_or_name), {}
    with refusing(path):
        for article in read_json(path):
            for block in article.get("paragraphs", [article]):  # a flat row is its own
                for row in block.get("qas", [block]):
                    record = {"context": block.get("context"), "title": article.get("title")} | row
                    with refusing(f"question {record.get('id', len(questions) + 1)}"):
                        question = read_question(record, labelled)
                        if question.id in questions:
                            raise ValueError("its id occurs twice")
                    questions[question.id] = question
        if not questions:
            raise ValueError("it holds no questions")
    lost = [q.id for q in questions.values() if UNLOCATED in (a.start for a in q.answers)]
    if lost:
        print(f"{path}: {len(lost)} have an answer out of place: {lost[:5]}", file=sys.stderr)
    return list(questions.values())


def read_json(path):
    """The list of a JSON file, or that under "data", or a value from each line (JSON Lines)."""
    content = path.read_bytes()
    if content.startswith(b"PAR1"):
        how = 'pandas.read_parquet(FILE).to_json(NEW, orient="records", lines=True)'
        raise ValueError(f"this is Parquet, SQuAD JSON is wanted; {how} writes it")
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    text = content.decode("utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # which is what a second line is
            raise
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return value.get("data", [value]) if isinstance(value, dict) else value


def read_question(record, labelled):
    """The fields of a question and its paragraph -> Question; ValueError says what is wrong."""
    wanted = {"id": str | int, "question": str, "context": str}
    if labelled:
        wanted |= {"answers": list | dict, "is_impossible": bool | None}
    impossible, golds = record.get("is_impossible"), record.get("answers")
    if impossible is True and golds is None:
        record["answers"] = golds = []
    wrong = [name for name, kinds in wanted.items() if not isinstance(record.get(name), kinds)]
    if wrong:
        what = f"{', '.join(wrong)}: missing, or of a wrong kind; see Formats in README.md"
        raise ValueError(f"{what}; among {', '.join(record)}")
    if not labelled:
        golds = []
    elif isinstance(golds, dict):  # the Hub's form: an object of lists
        if not isinstance(golds["text"], list):
            raise ValueError("answers holds one text and not a list of them")
        pairs = zip(golds["text"], golds["answer_start"], strict=True)
        golds = [{"text": text, "answer_start": start} for text, start in pairs]
    context, answers = record["context"], []
    for gold in golds:
        text, start = gold["text"], int(str(gold["answer_start"]).removesuffix(".0"))
        if start < 0 or not context.startswith(text, start):
            start = context.find(text) if context.count(text) == 1 else UNLOCATED
        if text.strip():  # some files have an empty one for none
            answers.append(Answer(text, start))
    if labelled and impossible is not None and impossible == bool(answers):
        raise ValueError(f"is_impossible is {impossible}, but it has {len(answers)} answers")
    asked = record["question"].strip()  # one of SQuAD's begins with 25,000 blanks
    return Question(str(record["id"]), asked, context, answers, str(record.get("title") or ""))


def write_file(path, content):
    """Write bytes, or anything else as JSON, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with refusing(f"{path} cannot be written; choose another place"):
        if not isinstance(content, bytes):
            content = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)


# --- Windows (5.2) ---------------------------------------------------------------------------
@dataclass
class Window:
    """A question and a part of its context, as the model sees it."""

    question: Question
    input_ids: np.ndarray  # (T,) [CLS] question [SEP] context [SEP]
    segment_ids: np.ndarray  # (T,)
    context: slice  # the positions that hold context
    offsets: np.ndarray  # (n, 2) of the context tokens
    golds: np.ndarray  # (k, 2) first and last position; -1, -1 if not inside

    def text(self, start, end):  # of positions start..end, inclusive
        first, last = start - self.context.start, end - self.context.start
        return self.question.context[self.offsets[first, 0] : self.offsets[last, 1]].strip()


def make_windows(questions, tokenizer, max_length=384, stride=128, mark_overlap=False):
    """Cut questions into windows of up to max_length tokens that share `stride` context tokens."""
    # mark_overlap, for the toy model: context tokens that the question holds get segment 2.
    tokenizer.no_truncation()  # which its file may ask for
    tokenizer.no_padding()
    if hasattr(tokenizer.model, "dropout"):
        tokenizer.model.dropout = None
    pair = tokenizer.encode("a", "b")
    specials = [token for token, special in zip(pair.ids, pair.special_tokens_mask) if special]
    cls, *separators, end = specials  # RoBERTa has two separators
    encoded = tokenize(questions, tokenizer)
    windows = []
    for q in questions:
        question_ids, _ = encoded[q.question.strip()]
        context_ids, offsets = encoded[q.context]
        golds = token_spans(offsets, q.answers)
        before = np.concatenate([[cls], question_ids, separators])
        room = max_length - len(before) - 1
        if room <= stride and room < len(context_ids):
            raise InputError(
                f"question {q.id}: no room for its context; see --max-length, --stride"
            )
        for start, stop in window_bounds(len(context_ids), room, stride):
            context = slice(len(before), len(before) + stop - start)
            input_ids = np.concatenate([before, context_ids[start:stop], [end]])
            segment_ids = np.zeros_like(input_ids)
            segment_ids[len(before) :] = pair.type_ids[-1]  # RoBERTa has one segment
            if mark_overlap:
                segment_ids[context][np.isin(context_ids[start:stop], question_ids)] = 2
            spans = golds_inside(golds, start, stop)
            spans[spans >= 0] += len(before)
            windows.append(Window(q, input_ids, segment_ids, context, offsets[start:stop], spans))
    return windows


def tokenize(questions, tokenizer):
    """Each distinct question and context once -> {text: (token ids (n,), offsets (n, 2))}."""
    texts = list({text for q in questions for text in (q.question.strip(), q.context)})
    encoded = {}
    # A post-processor that trims offsets takes a word's first letter for a blank that was added.
    processor, tokenizer.post_processor = tokenizer.post_processor, None
    for k in range(0, len(texts), 1000):  # an encoding takes 150 bytes a token
        part = texts[k : k + 1000]
        for text, encoding in zip(part, tokenizer.encode_batch(part, add_special_tokens=False)):
            encoded[text] = np.array(encoding.ids, np.int32), text_offsets(encoding.offsets, text)
    tokenizer.post_processor = processor
    return encoded


def text_offsets(offsets, text):
    """Offsets of tokens -> (n, 2), without the blank before a word, with all of its characters."""
    # " Ben" at (3, 7) becomes (4, 7); "Malmo" at (0, 5), whose accent was stripped, (0, 6).
    found, next_start = [], len(text)
    for start, end in reversed(offsets):
        while start < end and text[start] == " ":
            start += 1
        # On to the next token, blank, line end or control character.
        while end < next_start and text[end] != " " and text[end].isprintable():
            end += 1
        found.append((start, end))
        next_start = start
    return np.array(found[::-1], np.int32).reshape(-1, 2)


def window_bounds(length, room, stride):
    """Cut `length` tokens into (start, stop) of at most `room` that share `stride`.
    >>> window_bounds(10, room=5, stride=2)
    [(0, 5), (3, 8), (6, 10)]
    """
    if length <= room:
        return [(0, length)]
    starts = range(0, length - stride, room - stride)
    return [(start, min(start + room, length)) for start in starts]


def token_spans(offsets, answers):
    """The first and last of the tokens that hold a character of each answer; -1, -1 if none do.
    (n, 2) offsets, k answers -> (k, 2) tokens.
    >>> token_spans(np.array([(0, 3), (4, 9), (9, 10)]), [Answer("pan", 6), Answer("x", -1)])
    array([[ 1,  1],
           [-1, -1]])
    """
    spans = np.full((len(answers), 2), -1)
    for k, answer in enumerate(answers):
        end = answer.start + len(answer.text)
        (touched,) = np.nonzero((offsets[:, 0] < end) & (offsets[:, 1] > answer.start))
        if answer.start != UNLOCATED and len(touched) > 0:
            spans[k] = touched[0], touched[-1]
    return spans


def golds_inside(golds, start, stop):
    """The golds wholly in tokens start..stop-1, counted from `start`; -1, -1 for others (5.2).
    >>> golds_inside(np.array([(2, 3), (4, 6)]), 1, 5)
    array([[ 1,  2],
           [-1, -1]])
    """
    inside = (golds[:, :1] >= start) & (golds[:, 1:] < stop)
    return np.where(inside, golds - start, -1)


class Batch(NamedTuple):
    """B windows, padded to the longest of them. Index 0 of two is the start, 1 the end."""

    input_ids: torch.Tensor  # (B, T) int64
    segment_ids: torch.Tensor  # (B, T) int64
    mask: torch.Tensor  # (B, T) bool, False where padded
    context_mask: torch.Tensor  # (B, T) bool, True on context tokens
    labels: torch.Tensor  # (2, B, T) float, 1 at the ends of golds inside
    positions: torch.Tensor  # (2, B) int64 of the first gold; 0, [CLS], if outside


def collate(windows, device="cpu"):
    """[Window] -> Batch."""
    B, T = len(windows), max(len(window.input_ids) for window in windows)
    input_ids, segment_ids = np.zeros((2, B, T), np.int64)
    mask, context_mask = np.zeros((2, B, T), bool)
    labels, positions = np.zeros((2, B, T), np.float32), np.zeros((2, B), np.int64)
    for b, window in enumerate(windows):
        length = len(window.input_ids)
        input_ids[b, :length] = window.input_ids
        segment_ids[b, :length] = window.segment_ids
        mask[b, :length] = True
        context_mask[b, window.context] = True
        inside = window.golds[window.golds[:, 0] >= 0]
        labels[0, b, inside[:, 0]] = 1
        labels[1, b, inside[:, 1]] = 1
        if len(window.golds) > 0:
            positions[:, b] = window.golds[0].clip(min=0)
    arrays = input_ids, segment_ids, mask, context_mask, labels, positions
    return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


def length_bucketed(lengths, batch_size, rng):
    """Shuffled batches of indices of nearly equal length, so that little is padding."""
    order = rng.permutation(len(lengths))
    order = order[np.argsort(np.array(lengths)[order], kind="stable")]
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return [batches[k] for k in rng.permutation(len(batches))]


# --- Synthetic answers (5.3) and attacks (6) --------------------------------------------------
SENTENCE_END = re.compile(  # but not after an initial or an abbreviation
    r"(?<!\b[A-Z])(?<!\s[a-z])(?<!\b(?:Mr|Dr|St|Jr|vs))[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])"
)
NAME = r"(?:(?:[A-Z]\.)+|[A-Z][\w-]*)"
ENTITY = re.compile(rf"(?<=\s){NAME}(?: {NAME})*|\b\d[\d,.]*\b")
AUXILIARY = r"\b(?:is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|may)\b"
WH_PHRASE = re.compile(  # "what kind of day" before an auxiliary, "how many", or a word
    rf"(?i)\b(?:(?:what|which|whose|how)(?: [^\s?]+){{0,5}}?(?= {AUXILIARY}| ?\?*$)|how \S+"
    r"|who|whom|when|where|why|what|which|whose|how)\b"
)
MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = rf"(?:{MONTH}|[12]\d{{3}}s?|\d+\w\w century|\d+ (?:BC|AD))\b"
DIGIT = r"(?:\d|(?:one|two|three|four|five|six|seven|eight|nine|ten|\w+teen|twenty|fifty|half)\b)"
KINDS = {  # the first that fits an answer
    "year": r"1\d{3}|20\d\d",
    "date": rf"(?:(?:[a-z-]+|In|The|\d\d?) ){{,4}}{DATE}.{{,15}}",
    "number": rf"(?i)(?:about |over |more than )?[$£€]?{DIGIT}.*",
    "name": r"\W?(?:[Tt]he )?[A-ZÀ-Þ]\S*(?:(?: [a-z]{1,4}| \W)* [A-ZÀ-Þ\d]\S*)*",
    "words": ".*",
}
SHAPES = "[$£€]", "%|percent", "(?i)^(?:the|an?) ", ", | and | or ", " (?:the|its|their) ", "[^s]s$"
SHAPES += AUXILIARY, r"(?i)^(?:to|in|by|as|at|for|from|with|on|when|after) ", "^[a-z]+ing"
SHAPES += (
    "(?:al|ic|[^f]ive|ous|ed|ly)$",
    "(?:st|nd|rd|th)$",
    r"\b(?:year|month|day|hour|minute)s?\b",
)
STOP_WORDS = set("a an the of in on to for is are was were do does did has have had".split())
STOP_WORDS |= set("be can will what which who whom whose when where why how many much s".split())
ATTACKS = "addonesent", "negation", "information-seeking"


@cache
def answer_type(text):
    """What answers that are exchanged share: kind, number of words, and as many SHAPES as can be."""
    kind = next(kind for kind in KINDS if re.fullmatch(KINDS[kind], text, re.DOTALL))
    return kind, min(len(text.split()), 3), *(bool(re.search(shape, text)) for shape in SHAPES)


def answer_pool(questions):
    """Texts of first golds to draw from; none that opens or ends a sentence, or ends in "'s"."""
    asked = "".join(q.question for q in questions)
    if len(re.findall("[A-Za-zÀ-ɏ]", asked)) < len(re.findall(r"\w", asked)) / 2:
        print("Made sentences are English", file=sys.stderr)
    pool = []
    for q in questions:
        for gold in q.answers[:1]:
            before = q.context[: max(0, gold.start)].rstrip(" \"'“‘(")
            whole = re.search(r"^(?!not ).*[\w%)\"”](?<!['’]s)$", gold.text)
            if before and before[-1] not in ".!?" and whole:
                pool.append(gold.text)
    return pool


def another_answer(text, context, pool, rng):
    """An answer of the pool, not in the context, of the type of `text` or nearly so; or None."""
    wanted, held = answer_type(text), context.lower()
    drawn = dict.fromkeys(rng.choices(pool, k=500) if pool else [])
    alike = [other for other in drawn if answer_type(other)[:4] == wanted[:4]]
    alike.sort(key=lambda other: sum(a != b for a, b in zip(answer_type(other), wanted)))
    return next((other for other in alike if other.lower() not in held), None)


def sentence_bounds(context):
    """Where sentences begin, and the end of the text."""
    return [0] + [match.end() for match in SENTENCE_END.finditer(context)] + [len(context)]


def synthetic_answer(question, pool, rng, kind="mixed"):
    """Add a sentence with another answer to the same question; both are gold (5.3). Or None."""
    # paper: a language model wrote it. here: a rule, and it goes to any sentence bound. ours: a
    # "distractor" is the gold's sentence about other names, or denied; what it says is no gold.
    asked, context, golds = question.question, question.context, question.answers
    if not golds or any(gold.start == UNLOCATED for gold in golds):
        return None
    other = another_answer(golds[0].text, context, pool, rng)
    if other is None:
        return None
    bounds = sentence_bounds(context)
    start, end = golds[0].start, golds[0].start + len(golds[0].text)
    # "evidence": the gold's own sentence, with the other answer between `before` and `after`.
    before = context[max(b for b in bounds if b <= start) : start]
    after = context[end : min(b for b in bounds if b >= end)].rstrip()
    names_gold = any(gold.text.lower() in f"{before} {after}".lower() for gold in golds)
    if kind == "distractor":
        denied = re.sub(rf".*{AUXILIARY}(?! no)(?=[^,;:]*$)", r"\g<0> not", before, count=1)
        changed = sorted({denied, exchange_names(before, asked, context, pool, rng)} - {before})
        if names_gold or not changed:
            return None
        before = rng.choice(changed)
    elif kind == "template" or names_gold or (kind == "mixed" and rng.random() < 0.5):
        # "template": "<question> is <answer>.", also where evidence would name a gold once more.
        before, after = asked.rstrip("? ") + " is ", "."
    other = fitted(other, before)
    if not re.search(r"[.!?][\"'”’)\]]*$", other + after):
        after += "."
    inside_gold = {b for b in bounds for a in golds if a.start < b < a.start + len(a.text)}
    slot = rng.choice([b for b in bounds if b not in inside_gold])
    left = " " if slot == len(context) else ""
    sentence = left + before + other + after + ("" if left else " ")
    moved = [Answer(a.text, a.start + len(sentence) * (a.start >= slot)) for a in golds]
    if kind != "distractor":
        moved.append(Answer(other, slot + len(left + before)))
    return replace(question, context=context[:slot] + sentence + context[slot:], answers=moved)


def fitted(text, before):
    """A text as it stands after `before`: no second article, a capital first in a sentence."""
    if re.search(r"(?i)\b(?:a|an|the) $", before):
        text = re.sub(r"(?i)^(?:a|an|the) ", "", text)
    return text if before else text[0].upper() + text[1:]


def add_synthetic_answers(questions, share, seed=0, kind="mixed"):
    """The questions, a share of the answerable ones with a synthetic answer if one is found."""
    pool, rng, changed = answer_pool(questions), random.Random(seed), []
    for q in questions:
        made = synthetic_answer(q, pool, rng, kind) if rng.random() < share else None
        changed.append(made or q)
    return changed


def mislead(question, asked, pool, rng):
    """Append the words of `asked` as a statement with a fake answer in the wh-phrase's place."""
    phrase = WH_PHRASE.search(asked)
    if not question.answers or phrase is None:
        return None
    fake = another_answer(question.answers[0].text, question.context, pool, rng)
    if fake is None:
        return None
    before, after = asked[: phrase.start()], asked[phrase.end() :].rstrip("? ")
    sentence = before + fitted(fake, before) + after + "."
    return replace(question, context=f"{question.context} {sentence}")


def negate(question, pool, rng):
    """Negation-like attack: "Where was Ada born?" appended as "Oslo was not Ada born." (6)."""
    # paper: "not" before the first adjective. here: after the first auxiliary, with no tagger.
    asked, found = re.subn(AUXILIARY, r"\g<0> not", question.question, count=1)
    if not found or re.search(r"(?i)\bnot?\b|n't\b", question.question):
        return None
    return mislead(question, asked, pool, rng)


def add_one_sentence(question, pool, rng):
    """AddOneSent-like attack: a statement about other names and numbers, appended (6)."""
    changed = exchange_names(question.question, question.question, question.context, pool, rng)
    return mislead(question, changed, pool, rng) if changed != question.question else None


def exchange_names(text, asked, context, pool, rng):
    """A text with others, new to the context, for the names and numbers that `asked` holds too."""

    def exchanged(match):
        other = another_answer(match[0], context, pool, rng) if match[0] in asked else None
        return match[0] if other is None else fitted(other, text[: match.start()])

    return ENTITY.sub(exchanged, text)


def rematch(questions):
    """Information-seeking unanswerables: questions moved to the likest paragraph without a gold."""
    words = {q.context: set(re.findall(r"\w+", q.context.lower())) for q in questions}
    holders = Counter(word for found in words.values() for word in found)
    articles = defaultdict(dict)  # title: {context: its words}
    for q in questions:
        articles[q.title][q.context] = words[q.context]
    moved = []
    for q in questions:
        asked = set(re.findall(r"\w+", q.question.lower())) - STOP_WORDS
        scores = {}
        for context, found in articles[q.title].items():
            holds_gold = any(gold.text.lower() in context.lower() for gold in q.answers)
            if context != q.context and not holds_gold:
                scores[context] = sum(1 / holders[word] for word in sorted(asked & found))
        best = max(scores, key=scores.get, default=None)
        if q.answers and best is not None and scores[best] > 0:
            moved.append(Question(q.id + "-rematched", q.question, best, [], q.title))
    return moved


def attack(questions, kind, seed=0):
    """The questions that one of ATTACKS can change, changed."""
    if kind == "information-seeking":
        return rematch(questions)
    pool, rng = answer_pool(questions), random.Random(seed)
    change = negate if kind == "negation" else add_one_sentence
    changed = [change(q, pool, rng) for q in questions]
    return [q for q in changed if q is not None]


# --- The toy corpus --------------------------------------------------------------------------
TOY = {"toy-train": (16000, 0, "plain"), "toy-dev": (1000, 1, "plain")}
TOY |= {f"toy-{kind}": (1000, 1, kind) for kind in ATTACKS}
FIRST_NAMES = "Ada Ben Cora Dan Elsa Finn Gina Hugo Ines Jack Kira Liam Mona Nils Olga Paul".split()
LAST_NAMES = "Abel Berg Cole Dunn Eads Ford Gray Hale Ivers Jung Kerr Lowe Moss Nash Orr".split()
CITIES = "Arlon Brast Celle Dorin Ettal Fargo Ghent Horst Imola Jena Kolm Lodi Mesa Narva".split()
FIRMS = "Acton Bolt Crest Delta Ember Flux Gamma Helix Icon Jolt Krona Lumen Mango Nova".split()
RELATIONS = {  # question: (answers, statements); {p}: a person, {a}: the answer
    "Where was {p} born?": (CITIES, ["{p} was born in {a}", "{a} was the home town of {p}"]),
    "In which city did {p} study?": (CITIES, ["{p} studied in {a}", "{p} went to school in {a}"]),
    "Which company was founded by {p}?": (FIRMS, ["{p} founded {a}", "{a} was set up by {p}"]),
    "Who was the teacher of {p}?": ([], ["{p} was taught by {a}", "{a} was the teacher of {p}"]),
    "When did {p} die?": (range(1700, 1999), ["{p} died in {a}", "in {a} death came to {p}"]),
}


def toy_corpus(n, seed, kind="plain"):
    """n questions like SQuAD 2.0's, four to a context; two are unanswerable, about near misses."""
    rng, questions, known = random.Random(seed), [], {}
    while len(questions) < n:
        title = f"toy {len(questions) // 40}"
        first, last = rng.sample(FIRST_NAMES, 2), rng.sample(LAST_NAMES, 3)
        people = [f"{first[0]} {last[0]}", f"{first[0]} {last[1]}", f"{first[1]} {last[0]}"]
        context, facts = "", {}  # (person, question): Answer
        for asked in rng.sample(list(RELATIONS), 4):
            person = rng.choice(people)
            answers, statements = RELATIONS[asked]
            answers = answers or [f"{name} {last[2]}" for name in FIRST_NAMES]
            answer = known.setdefault((title, person, asked), str(rng.choice(answers)))
            sentence = rng.choice(statements).format(p=person, a=answer)
            facts[person, asked] = Answer(answer, len(context) + sentence.index(answer))
            context += sentence[0].upper() + sentence[1:] + ". "
        others = [(p, asked) for _, asked in facts for p in people if (p, asked) not in facts]
        for person, asked in rng.sample(list(facts), 2) + rng.sample(others, 2):
            answers = [facts[person, asked]] if (person, asked) in facts else []
            key, text = f"toy-{seed}-{len(questions)}", asked.format(p=person)
            questions.append(Question(key, text, context.strip(), answers, title))
    return questions[:n] if kind == "plain" else attack(questions[:n], kind, seed)
