"""SQuAD questions, windows, synthetic answers; below the line tokens, files, attacks, a toy corpus.

    SQuAD JSON -> [Question] -> synthetic answers or attacks -> [Window] -> Batch

Read after robust_eqa.py, down to the line `# ===`. Letters: B windows in a batch, T positions in a
window. A *position* counts tokens in a window, an *offset* counts characters in a context. Sections
are those of Tran & Kretchmar (2024).
"""

import copy
import gzip
import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

# Answer.start of a text that cannot be placed.
UNLOCATED = -1


@dataclass(frozen=True)
class Answer:
    """A gold answer: its text and the offset of its first character, or UNLOCATED."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context; unanswerable if it has no answers.

    UnicodeEncodeError if a text has half of a UTF-16 pair, as broken exports do: it is no text, and
    neither a tokenizer nor a file would take it.
    """

    id: str
    question: str
    context: str
    answers: list[Answer]
    # Of the article.
    title: str = ""

    def __post_init__(self):
        for text in (self.id, self.question, self.context):
            text.encode()


# --- Windows (5.2) ---------------------------------------------------------------------------


@dataclass
class Window:
    """A question and a part of its context, as the model sees it: T positions, n context tokens.

    input_ids (T,): [CLS] question [SEP] context [SEP]. context: the positions that hold context.
    offsets (n, 2): the characters start..end-1 of each context token. golds (k, 2): first and last
    position of each gold; -1, -1 if it is not wholly inside.
    """

    question: Question
    input_ids: np.ndarray
    segment_ids: np.ndarray
    context: slice
    offsets: np.ndarray
    golds: np.ndarray

    def text(self, start, end):
        """The context's text of positions start..end, both inclusive."""
        first, last = start - self.context.start, end - self.context.start
        return self.question.context[self.offsets[first, 0] : self.offsets[last, 1]].strip()


def make_windows(questions, tokenizer, max_length=384, stride=128, mark_overlap=False):
    """Cut questions into windows of up to max_length tokens that share `stride` context tokens.

    [Question], tokenizers.Tokenizer -> [Window], in order. They are those of a pair truncated by
    "only_second". InputError if a question leaves no room for `stride` + 1 tokens of a context that
    has to be cut. mark_overlap, for the toy model: context tokens that the question holds get
    segment 2.
    """
    # RoBERTa has two separators and one segment.
    tokenizer, (cls, *separators, last), segment = plain_tokenizer(tokenizer)
    encoded = tokenize(questions, tokenizer)
    windows = []
    for q in questions:
        question_ids, _ = encoded[q.question.strip()]
        context_ids, offsets = encoded[q.context]
        golds = token_spans(offsets, q.answers)
        before = np.concatenate([[cls], question_ids, separators])
        room = max_length - len(before) - 1
        if room <= stride and room < len(context_ids):
            raise InputError(f"question {q.id}: no room for a context; see --max-length, --stride")
        for start, stop in window_bounds(len(context_ids), room, stride):
            context = slice(len(before), len(before) + stop - start)
            input_ids = np.concatenate([before, context_ids[start:stop], [last]])
            segment_ids = np.zeros_like(input_ids)
            segment_ids[len(before) :] = segment
            if mark_overlap:
                # A slice of an array is a view: this writes into segment_ids.
                segment_ids[context][np.isin(context_ids[start:stop], question_ids)] = 2
            spans = golds_inside(golds, start, stop)
            spans[spans >= 0] += len(before)
            windows.append(Window(q, input_ids, segment_ids, context, offsets[start:stop], spans))
    return windows


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

    (k, 2) tokens -> (k, 2).

    >>> golds_inside(np.array([(2, 3), (4, 6)]), 1, 5)
    array([[ 1,  2],
           [-1, -1]])
    """
    inside = (golds[:, :1] >= start) & (golds[:, 1:] < stop)
    return np.where(inside, golds - start, -1)


class Batch(NamedTuple):
    """B windows as tensors, padded to T positions. Index 0 of two is the start, 1 the end.

    input_ids, segment_ids (B, T) int64; mask (B, T) bool, False where padded; context_mask (B, T)
    bool, True on context tokens; labels (2, B, T) float, 1 at the ends of all golds inside;
    positions (2, B) int64, the ends of the first gold, or 0, [CLS], if it is not inside.
    """

    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    mask: torch.Tensor
    context_mask: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor


def collate(windows, device="cpu"):
    """[Window] -> Batch, padded to the least multiple of 16 that holds the longest window."""
    longest = max(len(window.input_ids) for window in windows)
    # Few lengths: a CPU keeps compiled kernels for each, gigabytes for hundreds.
    B, T = len(windows), 16 * math.ceil(longest / 16)
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
    """Batches, in random order, of the indices of things of like length, so that little is padding.

    n lengths, a numpy Generator -> [index array of batch_size; one may be smaller].
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(np.array(lengths)[order], kind="stable")]
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return [batches[k] for k in rng.permutation(len(batches))]


# --- Synthetic answers (5.3) -----------------------------------------------------------------
# paper: a language model wrote them, and they go first, in the middle or last. here: rules, and
# any sentence bound; an answer is exchanged for that of another question which asks for the same.

# The mark that ends a sentence, with quotes and blanks after it; not in "J. Lee", "p. 3", "e.g. Ada"
# (the first two lookbehinds) or "Dr. Lee". The next sentence begins with a capital or a digit.
SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<![\s.][a-z])(?<!\b(?:Mr|Dr|St|Jr|vs))[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])"
)
AUX = r"\b(?:is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|may)\b(?!['’])"
# What gives way to the answer where a question becomes a statement.
WH_PHRASE = re.compile(
    # Up to the first auxiliary: [What kind of day] was it?
    rf"(?i)\b(?:(?:what|which|whose|how)(?: [^\s?]+){{0,4}}?(?= {AUX})"
    # Else, if it is not the question's first word, to the end: It was new on [what day]?
    r"|(?<= )(?:what|which|whose)(?: [^\s?]+){0,4}(?= ?\?*$)"
    # Else one word more, [Which day] came?, but not with "what", where it may be the verb: [What]
    # made it? Else the wh-word alone.
    r"|(?:how|which|whose) [^\s?]+|who|whom|when|where|why|what|which|whose|how)\b"
)
# The noun that a question asks for.
NOUN = re.compile(
    # "What", "What was the"
    r"\b(?:[Ww]hat|[Ww]hich|[Ww]hose)(?: (?:is|are|was|were) (?:an?|the))?"
    # " kind of"; " first American": as few words as can be, and no auxiliary among them, so that
    # "What did Ada sell?" has no noun
    rf"(?: (?:kind|type|sort|form|name)s? of)?(?: (?!{AUX})[\w'-]+){{0,3}}?"
    # " city", if " was", " of" or "?" follows it
    rf" (?!{AUX})([a-z][\w'-]+)(?= (?:{AUX}|of|for|in|on|to|that|who|at|from|by)\b|\?)"
)
FUNCTION_WORDS = set("a an the to in by as at for from with on of and because when after".split())


def sentence_bounds(context):
    """Where sentences begin, and the end of the text: offsets.

    >>> sentence_bounds('See p. 3, e.g. Dr. J. S. Lee "left." (It was 3.) 12 stayed!')
    [0, 37, 49, 59]
    """
    return [0] + [match.end() for match in SENTENCE_END.finditer(context)] + [len(context)]


def word_shape(word):
    """A function word itself, or what stands for words of the same look.

    >>> [word_shape(word) for word in "In 1912 30,000% of Swedish lakes freezing".split()]
    ['in', 'year', '0%', 'of', 'Name', '-s', '-ing']
    """
    if word.lower() in FUNCTION_WORDS:
        return word.lower()
    if re.search(r"\d", word):
        return "year" if re.fullmatch(r"[12]\d{3}", word) else re.sub("[^%$£€]+", "0", word)
    ending = re.search(r"\w{3}(s|ing|ed|ly)$", word)
    return "Name" if word[0].isupper() else f"-{ending[1]}" if ending else "word"


def answer_form(text):
    """The shapes of its first four words: "the League of Nations" -> "the Name of Name"."""
    return " ".join(map(word_shape, text.split()[:4]))


def answer_types(question_text, answer_text):
    """What an answer is exchanged by, the narrowest first: what is asked for, and the wh-word.

    Each with the answer's form, then with the form's first word and the number of words up to 4. What
    is asked for: a noun, or else the wh-word with the word after it or the question's last word.

    >>> answer_types("In which American city did Ada live?", "New York")
    [('city', 'Name Name'), ('city', 'Name', 2), ('which', 'Name Name'), ('which', 'Name', 2)]
    >>> for question in (
    ...     "What was the population of Oslo?",
    ...     "What kind of lake is it?",
    ...     "How many are there?",
    ...     "Where was she born?",
    ... ):
    ...     print(answer_types(question, "")[0][0])
    population
    lake
    how many
    where born?
    """
    phrase = WH_PHRASE.search(question_text)
    wh_word, *rest = phrase[0].lower().split() if phrase else ["what"]
    noun = NOUN.search(question_text)
    # "how" and "many", or "where" and "born?".
    word = (rest or question_text.split(" ")[-1:])[0]
    asked = noun[1] if noun else f"{wh_word} {word}"
    form = answer_form(answer_text)
    outline = (form.partition(" ")[0], min(len(answer_text.split()), 4))
    return [(asked, form), (asked, *outline), (wh_word, form), (wh_word, *outline)]


def answer_pool(questions):
    """What another_answer draws from: {type: texts of first golds, each text once}.

    A form alone is a type as well. Left out: a text that opens a sentence (its capital may not be its
    own) or has no place, that begins with "not", or that ends in "'s" or a mark like a comma.
    """
    asked = "".join(q.question for q in questions)
    if len(re.findall("[A-Za-zÀ-ɏ]", asked)) < len(re.findall(r"\w", asked)) / 2:
        print("made sentences are English", file=sys.stderr)
    # Dictionaries as sets that keep their order.
    pool = defaultdict(dict)
    for q in [q for q in questions if q.answers]:
        gold = q.answers[0]
        # Nothing stands before a gold that is UNLOCATED.
        before = q.context[: max(0, gold.start)].rstrip(" \"'“‘(")
        clean = re.search(r"^(?!not ).*[\w%)\"”](?<!['’]s)$", gold.text)
        if before and before[-1] not in ".!?" and clean:
            for kind in (*answer_types(q.question, gold.text), answer_form(gold.text)):
                pool[kind][gold.text] = None
    return {kind: list(texts) for kind, texts in pool.items()}


def draw(types, context, pool, rng):
    """A text of the first of these types with one, of 20 drawn, that the context has not; or None."""
    context = context.lower()
    for kind in types:
        texts = pool.get(kind, [])
        for text in rng.sample(texts, min(20, len(texts))):
            if text.lower() not in context:
                return text
    return None


def another_answer(question, pool, rng):
    """Another text that might answer the question, not in its context; or None.

    >>> pool = {"Name": ["Oslo"], ("who", "Name Name"): ["Ben Cole", "Ada Lee"]}
    >>> another_answer(Question("q", "Who?", "Ada Lee.", [Answer("Ada Lee", 0)]), pool, random)
    'Ben Cole'
    """
    answers = question.answers
    types = answer_types(question.question, answers[0].text) if answers else []
    return draw(types, question.context, pool, rng)


def fitted(text, before):
    """A text as it stands after `before`: no second article, a capital first in a sentence.

    >>> fitted("the lake", "Ada saw the "), fitted("the lake", "")
    ('lake', 'The lake')
    """
    if re.search(r"(?i)\b(?:a|an|the) $", before):
        text = re.sub(r"(?i)^(?:a|an|the) ", "", text)
    return text if before else text[0].upper() + text[1:]


def evidence(question, other):
    """The first gold's sentence with another answer in its place: what stands before and after it.

    And whether it still names a gold.

    >>> evidence(Question("q", "Who?", "It rained. Then Ada came. So", [Answer("Ada", 16)]), "Ben")
    ('Then ', ' came.', False)
    """
    context, gold = question.context, question.answers[0]
    bounds, end = sentence_bounds(context), gold.start + len(gold.text)
    first = max(bound for bound in bounds if bound <= gold.start)
    last = min(bound for bound in bounds if bound >= end)
    before, after = context[first : gold.start], context[end:last].rstrip()
    sentence = f"{before}{other}{after}".lower()
    return before, after, any(gold.text.lower() in sentence for gold in question.answers)


def insert_sentence(question, before, answer, after, rng):
    """Put the sentence before + answer + after at a random sentence bound, not inside a gold.

    -> the changed Question, with its golds moved, and the Answer in the new sentence.
    """
    answer = fitted(answer, before)
    sentence = before + answer + after
    if not re.search(r"[.!?][\"'”’)\]]*$", sentence):
        sentence += "."
    context, golds = question.context, question.answers
    inside = {k for gold in golds for k in range(gold.start + 1, gold.start + len(gold.text))}
    slot = rng.choice([bound for bound in sentence_bounds(context) if bound not in inside])
    piece = f" {sentence}" if slot == len(context) else f"{sentence} "
    changed = context[:slot] + piece + context[slot:]
    moved = [replace(g, start=g.start + len(piece)) if g.start >= slot else g for g in golds]
    inserted = Answer(answer, slot + piece.index(sentence) + len(before))
    return replace(question, context=changed, answers=moved), inserted


def synthetic_answer(question, pool, rng, kind="mixed"):
    """Add a sentence with another answer to the same question, which is gold too (5.3). Or None.

    kind: "evidence", the sentence of the first gold with the other answer in its place;
    "template", "<question> is <answer>.", also taken where evidence would name a gold once more; or
    "mixed", one or the other by chance.
    """
    other = another_answer(question, pool, rng)
    if other is None or any(gold.start == UNLOCATED for gold in question.answers):
        return None
    before, after, names_gold = evidence(question, other)
    if kind == "template" or names_gold or (kind == "mixed" and rng.random() < 0.5):
        before, after = question.question.rstrip("? ") + " is ", "."
    changed, synthetic = insert_sentence(question, before, other, after, rng)
    return replace(changed, answers=[*changed.answers, synthetic])


def add_sentences(questions, share, make, seed=0):
    """The questions, a share of them with a sentence that `make` adds where it can.

    make: synthetic_answer or distractor.
    """
    pool, rng, changed = answer_pool(questions), random.Random(seed), []
    for q in questions:
        made = make(q, pool, rng) if rng.random() < share else None
        changed.append(made or q)
    return changed


# === Around the method: not needed to understand it ===========================================


class InputError(Exception):
    """What a user gave cannot be used; the message says what to do."""


@contextmanager
def refusing(what):
    """Turn errors about a user's file, which libraries raise in many kinds, into an InputError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    # The library tokenizers panics with what is no Exception.
    except BaseException as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what}: {reason}") from None


# --- Tokens ----------------------------------------------------------------------------------
# Format characters of words: soft hyphen, zero-width joiners, and the letters that make a flag.
GLUE = {"\u00ad", "\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))}


def plain_tokenizer(tokenizer):
    """A tokenizer that only encodes, and what it would put around a pair of texts.

    -> a copy that neither cuts, pads, draws nor adds anything (the caller's own stays as it is), ids
    of the special tokens of a pair in their order, segment id of the second text.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if hasattr(tokenizer.model, "dropout"):
        tokenizer.model.dropout = None
    # The second, a letter of Sumer, fails where there is no token for unknown letters.
    pair = tokenizer.encode("a", "\U00012000")
    special = [token for token, own in zip(pair.ids, pair.special_tokens_mask) if own]
    # Else one that trims offsets takes a word's first letter for a blank that was added.
    tokenizer.post_processor = None
    return tokenizer, special, pair.type_ids[-1]


def tokenize(questions, tokenizer):
    """Each distinct question and context once -> {text: (token ids (n,), offsets (n, 2))}."""
    texts = list({text for q in questions for text in (q.question.strip(), q.context)})
    encoded = {}
    for text, encoding in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False)):
        encoded[text] = np.array(encoding.ids, np.int32), text_offsets(encoding.offsets, text)
    return encoded


def text_offsets(offsets, text):
    """Offsets of tokens -> (n, 2), without the blank before a word, and to the end of the word.

    Here of " Ben", and of "Malmo" with an accent that the tokenizer has stripped off its end:

    >>> text_offsets([(0, 2), (2, 6), (6, 9), (9, 12)], "in Ben Malmo\\u0308 x").tolist()
    [[0, 2], [3, 6], [7, 9], [9, 13]]
    """
    # The last token first, since each may grow up to the start of the next.
    found, limit = [], len(text)
    for start, end in reversed(offsets):
        while start < end and text[start] == " ":
            start += 1
        # Extend to the next token, a blank, a line end, a control or a format character.
        while end < limit and (text[end] in GLUE or (text[end] != " " and text[end].isprintable())):
            end += 1
        found.append((start, end))
        limit = start
    return np.array(found[::-1], np.int32).reshape(-1, 2)


# --- Files -----------------------------------------------------------------------------------


def read_questions(path_or_name, labelled=True):
    """Questions of a SQuAD file or of a name in TOY -> [Question], or InputError.

    SQuAD v1.1 and v2.0, flat rows, JSON Lines; gzipped or not. Unless labelled, answers stay unread.
    """
    if path_or_name in TOY:
        return toy_corpus(*TOY[path_or_name])
    path, questions = Path(path_or_name), {}
    with refusing(path):
        for record in read_records(path):
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


def read_records(path):
    """What a file says of each question, with the context and title that it says once for many."""
    for article in objects("data", read_json(path)):
        for block in objects("paragraphs", article.get("paragraphs", [article])):
            # A flat row is its own article and block.
            for row in objects("qas", block.get("qas", [block])):
                yield {"context": block.get("context"), "title": article.get("title")} | row


def objects(name, value):
    """A list of JSON objects, as it is; ValueError for anything else."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{name} is no list of objects; see Formats in README.md")
    return value


def read_json(path):
    """The list of a JSON file, or that under "data", or a value from each line (JSON Lines)."""
    content = path.read_bytes()
    if content.startswith(b"PAR1"):
        how = 'pandas.read_parquet(FILE).to_json(NEW, orient="records", lines=True)'
        raise ValueError(f"this is Parquet, not SQuAD JSON; {how} writes it")
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    text = content.decode("utf-8-sig")
    lines = {n: line for n, line in enumerate(text.split("\n"), 1) if line.strip()}
    if [line.strip()[0] for line in lines.values()][:2] == ["{", "{"]:
        return [read_line(n, line) for n, line in lines.items()]
    value = json.loads(text)
    return value.get("data", [value]) if isinstance(value, dict) else value


def read_line(number, line):
    """A line of JSON Lines; ValueError with its number in the file."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from None


def read_question(record, labelled):
    """The fields of a question and its paragraph -> Question; ValueError says what is wrong."""
    wanted = {"id": str | int, "question": str, "context": str}
    if labelled:
        wanted = {**wanted, "answers": list | dict, "is_impossible": bool | None}
    impossible, golds = record.get("is_impossible"), record.get("answers")
    if impossible is True and golds is None:
        record["answers"] = golds = []
    wrong = [name for name, kinds in wanted.items() if not isinstance(record.get(name), kinds)]
    if wrong:
        what = f"{', '.join(wrong)}: missing, or of a wrong kind; see Formats in README.md"
        raise ValueError(f"{what}; among {', '.join(record)}")
    # A question of SQuAD's begins with 25,000 blanks.
    context, asked = record["context"], record["question"].strip()
    answers = read_answers(golds, context) if labelled else []
    # One of the two must be true.
    if labelled and impossible is not None and impossible == bool(answers):
        raise ValueError(f"is_impossible is {impossible}, with {len(answers)} answers")
    return Question(str(record["id"]), asked, context, answers, str(record.get("title") or ""))


def read_answers(golds, context):
    """A list of objects, or an object of lists as the Hub has it -> [Answer]; or ValueError."""
    if isinstance(golds, dict):
        texts, starts = golds.get("text"), golds.get("answer_start", [])
        if not (isinstance(texts, list) and isinstance(starts, list)):
            raise ValueError("answers holds one text and not a list of them")
        golds = [{"text": t, "answer_start": s} for t, s in zip_longest(texts, starts)]
    answers = []
    for gold in objects("answers", golds):
        text, start = gold.get("text"), str(gold.get("answer_start"))
        if not isinstance(text, str):
            raise ValueError(f"the text of an answer is {text}, no text")
        # Some files have an empty one for none.
        if not text.strip():
            continue
        if not re.fullmatch(r"-?\d+(\.0)?", start):
            raise ValueError(f"answer_start of {text!r} is {start}, no whole number")
        start = int(float(start))
        if start < 0 or not context.startswith(text, start):
            start = context.find(text) if context.count(text) == 1 else UNLOCATED
        answers.append(Answer(text, start))
    return answers


def write_file(path, content):
    """Write bytes, or anything else as JSON, whole or not at all; through a link; or InputError."""
    with refusing(f"{path} cannot be written; choose another place"):
        if not isinstance(content, bytes):
            content = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False).encode()
        # A device or a named pipe is written into; else a draft takes the file's name.
        special = Path(path).exists() and not Path(path).is_file()
        path = Path(path) if special else Path(path).resolve()
        draft = path if special else path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        if not special:
            draft.replace(path)


# --- Attacks (6), and sentences that are no gold ---------------------------------------------
# paper: a language model, taggers and WordNet found what to change. here: rules, as above.
ATTACKS = "addonesent", "negation", "information-seeking"
DENIAL = r"(?i:\b(?:not?|never|none|nobody|nothing)\b|n['’]t\b)"
NAME = r"(?:(?:[A-Z]\.)+|[A-Z][\w-]*)"
NAME_OR_NUMBER = re.compile(rf"\b{NAME}(?: {NAME})*|\b\d[\d,.]*\b")
COMMON = "a an the of in on to for is are was were do does did has have had be can will many much s"
STOP_WORDS = {*COMMON.split(), *"what which who whom whose when where why how".split()}


def attack(questions, kind, seed=0):
    """The questions that one of ATTACKS can change, changed -> [Question]."""
    if kind == "information-seeking":
        return rematch(questions)
    pool, rng = answer_pool(questions), random.Random(seed)
    change = negate if kind == "negation" else add_one_sentence
    return list(filter(None, (change(q, pool, rng) for q in questions)))


def add_one_sentence(question, pool, rng):
    """AddOneSent-like attack: a statement about other names and numbers, appended (6); or None."""
    asked = exchange_names(question.question, question, pool, rng)
    return append_statement(question, asked, pool, rng) if asked != question.question else None


def negate(question, pool, rng):
    """Negation-like attack: "Where was Ada born?" appended as "Oslo was not Ada born." (6)."""
    # paper: "not" before the first adjective. here: after the first auxiliary, with no tagger.
    asked, found = re.subn(AUX, r"\g<0> not", question.question, count=1)
    if not found or re.search(DENIAL, question.question):
        return None
    return append_statement(question, asked, pool, rng)


def append_statement(question, asked, pool, rng):
    """Append the words of `asked` as a statement with a fake answer in the wh-phrase's place.

    >>> for asked in (
    ...     "What kind of day was it?",
    ...     "It was new on what day?",
    ...     "Which day is new?",
    ...     "How many days are new?",
    ...     "What made the day?",
    ... ):
    ...     print(WH_PHRASE.search(asked)[0])
    What kind of day
    what day
    Which day
    How many days
    What
    """
    phrase = WH_PHRASE.search(asked)
    fake = another_answer(question, pool, rng)
    if phrase is None or fake is None:
        return None
    before, after = asked[: phrase.start()], asked[phrase.end() :].rstrip("? ")
    statement = before + fitted(fake, before) + after + "."
    return replace(question, context=f"{question.context} {statement}")


def exchange_names(text, question, pool, rng):
    """A text with each name and number that the question has too exchanged for one of its form.

    The question's first word does not count: it has a capital anyway.

    >>> pool = {"Name Name": ["Ben Cole"], "0": ["8"]}
    >>> question = Question("q", "Who saw Ada Lee and 12 more?", "", [])
    >>> exchange_names("Then Ada Lee, one of 12, saw 120.", question, pool, random)
    'Then Ben Cole, one of 8, saw 120.'
    """
    # Longest first, so that "Ada Lee" is tried before "Ada".
    later_words = question.question.partition(" ")[2]
    names = sorted(NAME_OR_NUMBER.findall(later_words), key=len, reverse=True)

    def exchanged(match):
        other = draw([answer_form(match[0])], question.context, pool, rng)
        return match[0] if other is None else fitted(other, text[: match.start()])

    pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names)
    return re.sub(pattern, exchanged, text) if pattern else text


def distractor(question, pool, rng):
    """Add the gold's sentence with another answer, denied or about other names: no gold. Or None.

    Only words before the gold are changed.
    """
    # ours: the paper has none.
    other = another_answer(question, pool, rng)
    if other is None or any(gold.start == UNLOCATED for gold in question.answers):
        return None
    before, after, names_gold = evidence(question, other)
    changed = {denied(before), exchange_names(before, question, pool, rng)} - {before}
    if names_gold or not changed:
        return None
    return insert_sentence(question, rng.choice(sorted(changed)), other, after, rng)[0]


def denied(text):
    """A text with "not" after its last auxiliary; as it is where it is denied or has a later clause.

    >>> denied("So it was known by "), denied("It was notable for ")
    ('So it was not known by ', 'It was not notable for ')
    >>> denied("No lake was at "), denied("It was new, and near ")
    ('No lake was at ', 'It was new, and near ')
    """
    return re.sub(rf"(?s)^(?!.*{DENIAL}).*{AUX}(?=[^,;:]*$)", r"\g<0> not", text)


def rematch(questions):
    """Information-seeking unanswerables: questions moved to the likest paragraph without a gold.

    [Question] -> [Question]. A paragraph of the same article is liker the more words of the question
    it has, each with the weight 1 / paragraphs, of all articles, that have it.
    """
    # paper: TF-IDF over all data, hard cases kept by six models. here: these weights, one article.
    words = {q.context: set(re.findall(r"\w+", q.context.lower())) for q in questions}
    holders = Counter(word for found in words.values() for word in found)
    articles, indices = defaultdict(list), defaultdict(list)
    # articles: title -> its contexts; indices: (title, word) -> which of them have the word
    for title, context in dict.fromkeys((q.title, q.context) for q in questions):
        for word in words[context]:
            indices[title, word].append(len(articles[title]))
        articles[title].append(context)
    moved = []
    for q in questions:
        likeness = np.zeros(len(articles[q.title]))
        # Sorted, since the order decides how a sum is rounded.
        for word in sorted(set(re.findall(r"\w+", q.question.lower())) - STOP_WORDS):
            if (q.title, word) in indices:
                likeness[indices[q.title, word]] += 1 / holders[word]
        # The likest that will do.
        while q.answers and likeness.max() > 0:
            context = articles[q.title][likeness.argmax()]
            holds_gold = any(gold.text.lower() in context.lower() for gold in q.answers)
            if context != q.context and not holds_gold:
                moved.append(Question(q.id + "-rematched", q.question, context, [], q.title))
                break
            likeness[likeness.argmax()] = 0
    return moved


# --- The toy corpus --------------------------------------------------------------------------
# name: questions, seed, kind
TOY_ATTACKED = {f"toy-{kind}": (1000, 1, kind) for kind in ATTACKS}
TOY = {"toy-train": (16000, 0, "plain"), "toy-dev": (1000, 1, "plain"), **TOY_ATTACKED}
FIRST_NAMES = "Ada Ben Cora Dan Elsa Finn Gina Hugo Ines Jack Kira Liam Mona Nils Olga Paul".split()
LAST_NAMES = "Abel Berg Cole Dunn Eads Ford Gray Hale Ivers Jung Kerr Lowe Moss Nash Orr".split()
CITIES = "Arlon Brast Celle Dorin Ettal Fargo Ghent Horst Imola Jena Kolm Lodi Mesa Narva".split()
FIRMS = "Acton Bolt Crest Delta Ember Flux Gamma Helix Icon Jolt Krona Lumen Mango Nova".split()
# Question: (answers, statements); {p}: a person, {a}: the answer.
RELATIONS = {
    "Where was {p} born?": (CITIES, ["{p} was born in {a}", "{a} was the home town of {p}"]),
    "In which city did {p} study?": (CITIES, ["{p} studied in {a}", "{p} went to school in {a}"]),
    "Which company was founded by {p}?": (FIRMS, ["{p} founded {a}", "{a} was set up by {p}"]),
    "Who was the teacher of {p}?": ([], ["{p} was taught by {a}", "{a} was the teacher of {p}"]),
    "When did {p} die?": (range(1700, 1999), ["{p} died in {a}", "in {a} death came to {p}"]),
}


def toy_corpus(n, seed, kind="plain"):
    """n questions like SQuAD 2.0's, four to a context; two are unanswerable, about near misses.

    kind: "plain" or one of ATTACKS, made of the plain ones.
    """
    rng, questions, known = random.Random(seed), [], {}
    while len(questions) < n:
        title = f"toy {len(questions) // 40}"
        first, last = rng.sample(FIRST_NAMES, 2), rng.sample(LAST_NAMES, 3)
        people = [f"{first[0]} {last[0]}", f"{first[0]} {last[1]}", f"{first[1]} {last[0]}"]
        # facts: (person, question): Answer
        context, facts = "", {}
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
