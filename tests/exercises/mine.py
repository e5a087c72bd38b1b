"""Your solutions. Replace a `raise` by your code, then: python -m pytest --mine

Ten exercises in the paper's order; each is a function of the project, which is the solution
(data.py, model.py, robust_eqa.py: look there last). One exercise: python -m pytest --mine -k spans
Answer(text, start) and Question(id, question, context, answers, title) are frozen; answers is a
list of Answer, and dataclasses.replace makes a changed copy.
Letters: B windows in a batch, T positions in a window, H heads, d width of a head.
In 6 to 9 start and end are stacked: index 0 of the first axis is the start, 1 the end.
"""
# ruff: noqa: F401, I001 (the imports are there for your code; add others as you like)

import math
import random
import re
import string
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from data import UNLOCATED, Answer, Question, another_answer, fitted, sentence_bounds

# --- 1 f1: paper 6; easy, 10 minutes ---------------------------------------------------------


def normalize_answer(text):
    r"""Lower case; no ASCII punctuation; then no words a, an, the; single spaces, none around.

    str -> str: "The  Cat's hat!" -> "cats hat". This is the official SQuAD rule, step by step;
    it finds a word's bounds as the regular expression \b does, so other marks bound words too.
    """
    raise NotImplementedError  # your code (about 2 lines)


def token_f1(prediction, gold):
    """F1 of the two normalised texts, each a bag of words: harmonic mean of precision and recall.

    str, str -> float from 0 to 1. Where one text has no words left: 1 if both have none, else 0.
    """
    raise NotImplementedError  # your code (about 8 lines)


# --- 2 spans: paper 5.2; medium, 20 minutes --------------------------------------------------


def token_spans(offsets, answers):
    """The first and last token (inclusive) of the smallest run that covers each answer.

    (n, 2) int array with each token's characters start..end-1; k Answers -> (k, 2) int array.
    Answer.start is a character offset. A row is -1, -1 where the start is UNLOCATED or no token
    holds a character of the answer; tokens stand in the order of the text and may share offsets.
    Without answers the result is an int array too, of shape (0, 2).
    """
    raise NotImplementedError  # your code (about 8 lines)


# --- 3 windows: paper 5.2; easy, 10 minutes --------------------------------------------------


def window_bounds(length, room, stride):
    """Cut `length` tokens into windows of at most `room`; neighbours *share* `stride` tokens.

    int x3 (stride < room) -> list of (start, stop), stop one after the last token. All windows but
    the last are full, and none comes after the one that reaches the end. No tokens: one window.
    """
    raise NotImplementedError  # your code (about 6 lines)


# --- 4 labels: paper 5.2; easy, 10 minutes ---------------------------------------------------


def golds_inside(golds, start, stop):
    """The golds that lie wholly in the window of tokens start..stop-1, counted from `start`.

    (k, 2) int array of first and last tokens (inclusive; -1, -1 where a gold has no tokens)
    -> (k, 2) int array, a row for each gold, in their order; -1, -1 for one that is not inside.
    """
    raise NotImplementedError  # your code (about 2 lines)


# --- 5 attention: Vaswani et al. 2017; medium, 20 minutes ------------------------------------


def attention(query, key, value, mask, p=0.0):
    """softmax(q k^T / sqrt(d)) v over the keys that the mask admits.

    (B, H, T, d) x3, (B, T) bool, True on real tokens, False on padding -> (B, H, T, d), a tensor
    of a floating type through which gradients flow. Each weight is dropped with probability p,
    after the softmax (F.dropout does it).
    """
    raise NotImplementedError  # your code (about 3 lines)


# --- 6 default_loss: paper 2; easy, 15 minutes -----------------------------------------------


def default_loss(logits, positions, mask):
    """The usual loss: (cross entropy of the start + cross entropy of the end) / 2, batch mean.

    (2, B, T), (2, B) int64, (B, T) bool, False on padding -> scalar tensor of a floating type
    through which gradients flow. Padding is outside the softmax. Position 0, [CLS], stands for
    "no answer" and is trained like any other.
    """
    raise NotImplementedError  # your code (about 2 lines)


# --- 7 qa_loss: paper 5.2; hard, 30 minutes --------------------------------------------------


def qa_loss(logits, labels, mask):
    """Cross entropy against 1/k on each of k labelled positions, or 1/n on all n if there is none.

    (2, B, T), (2, B, T) float, 1 at the first (last) token of every gold, else 0, (B, T) bool
    -> scalar tensor of a floating type through which gradients flow: (start + end) / 2, mean over
    the batch. Start and end have a k each. The n positions are those the mask admits, [CLS] and
    question included; padding is outside the softmax too, and a label under it counts for nothing.
    """
    raise NotImplementedError  # your code (about 6 lines)


# --- 8 robust_loss: paper 5.2; medium, 20 minutes --------------------------------------------


def tagging_loss(logits, labels, mask, positive_weight=2.0):
    """Binary cross entropy of sigmoid(logit) against the label, at every position the mask admits.

    Shapes as in qa_loss -> scalar tensor like qa_loss's: *summed* over positions, (start + end) / 2,
    mean over the batch. What a position labelled 1 costs is multiplied by positive_weight.
    """
    raise NotImplementedError  # your code (about 3 lines)


def robust_loss(logits, labels, mask, qa_weight=2.0, tagging_weight=1.0, positive_weight=2.0):
    """The loss of the paper: qa_weight times qa_loss plus tagging_weight times tagging_loss."""
    raise NotImplementedError  # your code (about 3 lines)


# --- 9 decoder: paper 5.2; hard, 40 minutes --------------------------------------------------


def best_spans(logits, context_mask, max_answer_length):
    """In each window the span i..j (inclusive) with the greatest start logit i + end logit j.

    (2, B, T), (B, T) bool, int -> a tuple of tensors: scores (B,) float64, starts (B,) and ends
    (B,) int64. i and j are context tokens (what is between does not matter), i <= j, and the span
    has at most max_answer_length tokens. Ties: the earliest start, then the earliest end; add in
    float64 (logits.double()), so that no tie comes from rounding. A window without context scores
    -1e30, and its span does not matter. First write it with loops or a (B, T, T) table; both are
    right.
    """
    raise NotImplementedError  # your code (about 10 lines)


def decide(scores, null_scores=None):
    """The window whose best span answers the question, and how much speaks against answering.

    (n,) best spans' scores of a question's n windows, lists or arrays -> int index, float score.
    The greatest score wins, ties go to the earliest. Robust training: the no-answer score is minus
    the greatest score. Default training also gives (n,) null_scores, a window's start logit + end
    logit at position 0, [CLS]: min(null_scores) - max(scores). Above 0 the caller answers "".
    """
    raise NotImplementedError  # your code (about 3 lines)


# --- 10 synthetic: paper 5.3; hard, 30 minutes -----------------------------------------------


def synthetic_answer(question, pool, rng, kind="mixed"):
    """Put a new sentence with another answer into the context, so that both answers are gold.

    Question, {type: [texts]}, random.Random, kind -> new Question (dataclasses.replace), or None.
    another_answer(question, pool, rng) draws the new answer: that of a question which asks for the
    same, and not in the context; or None. sentence_bounds(context) lists the offsets at which a
    sentence begins, and len(context). The new sentence, by kind:
      "evidence"  from the last bound at or before the first gold's start to the first bound at or
                  after its end, with the new answer in the gold's place; but the template, where
                  that sentence still holds the text of a gold, in upper or lower case
      "template"  "<question without ? and blanks at its end> is <new answer>."
      "mixed"     one of the two, drawn from rng
    fitted(answer, before) is the answer as it stands after the text `before`, in this sentence:
    with a capital if it comes first, and without its article behind another. A new sentence that
    ends without a mark (.!?, quotes or brackets may follow) gets a full stop; the old ones stay as
    they are. It is put at one of the bounds, drawn from rng: at a gold's start or end too, but never inside a gold; one space stands
    between sentences. Every answer of the result stands at its start; the new one, as fitted, is
    listed last. None for a question without golds, with an UNLOCATED one, or where there is no
    other answer.
    """
    raise NotImplementedError  # your code (about 30 lines)
