"""Your solutions. Replace a `raise` by your code, then: python -m pytest --mine

Ten exercises in the paper's order; each is a function of the project, which is the solution
(data.py, model.py, robust_eqa.py: look there last). One exercise: python -m pytest --mine -k spans
Answer(text, start) and Question(id, question, context, answers, title) are frozen; answers is a
list of Answer, and dataclasses.replace makes a changed copy.
Letters: B windows in a batch, T positions in a window, H heads, d width of a head.
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

from data import ANSWER, ELSEWHERE, NO_ANSWER, UNLOCATED, Answer, Question

# --- 1 f1: paper 6; easy, 10 minutes ---------------------------------------------------------


def normalize_answer(text):
    """Lower case; no ASCII punctuation; then no words a, an, the; single spaces, none around.

    str -> str: "The  Cat's hat!" -> "cats hat". This is the official SQuAD rule, step by step.
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


def window_label(golds, start, stop):
    """The golds that lie wholly in the window of tokens start..stop-1, and the window's label.

    (k, 2) int array of first and last tokens (inclusive; -1, -1 where a gold has no tokens)
    -> (j, 2) array of those inside, unchanged and in their order; and ANSWER if there is one,
    ELSEWHERE if there are golds but none inside, NO_ANSWER if the question has no golds
    (ANSWER 0, ELSEWHERE 1, NO_ANSWER 2).
    """
    raise NotImplementedError  # your code (about 6 lines)


# --- 5 attention: Vaswani et al. 2017; medium, 20 minutes ------------------------------------


def attention(query, key, value, mask, p=0.0):
    """softmax(q k^T / sqrt(d)) v over the keys that the mask admits.

    (B, H, T, d) x3, (B, T) bool, True on real tokens, False on padding -> (B, H, T, d).
    Dropout with probability p on the weights, after the softmax (F.dropout does it).
    """
    raise NotImplementedError  # your code (about 3 lines)


# --- 6 default_loss: paper 2; easy, 15 minutes -----------------------------------------------


def default_loss(start_logits, end_logits, start_positions, end_positions, mask):
    """The usual loss: (cross entropy of the start + cross entropy of the end) / 2, batch mean.

    (B, T) x2, (B,) int64 x2, (B, T) bool, False on padding -> scalar. Padding is outside the
    softmax. Position 0, [CLS], stands for "no answer" and is trained like any other.
    """
    raise NotImplementedError  # your code (about 4 lines)


# --- 7 qa_loss: paper 5.2; hard, 30 minutes --------------------------------------------------


def qa_loss(start_logits, end_logits, start_labels, end_labels, mask):
    """Cross entropy against 1/k on each of k labelled positions, or 1/n on all n if there is none.

    (B, T) x2, labels (B, T) float x2, 1 at the first (last) token of every gold, else 0,
    (B, T) bool -> scalar: (start + end) / 2, mean over the batch. The n positions are those the
    mask admits, [CLS] and question included; padding is outside the softmax too.
    """
    raise NotImplementedError  # your code (about 8 lines)


# --- 8 robust_loss: paper 5.2; medium, 20 minutes --------------------------------------------


def tagging_loss(start_logits, end_logits, start_labels, end_labels, mask, positive_weight=2.0):
    """Binary cross entropy of sigmoid(logit) against the label, at every position the mask admits.

    Shapes as in qa_loss -> scalar: *summed* over positions, (start + end) / 2, mean over the
    batch. What a position labelled 1 costs is multiplied by positive_weight.
    """
    raise NotImplementedError  # your code (about 5 lines)


def robust_loss(
    start_logits,
    end_logits,
    start_labels,
    end_labels,
    mask,
    qa_weight=2.0,
    tagging_weight=1.0,
    positive_weight=2.0,
):
    """The loss of the paper: qa_weight times qa_loss plus tagging_weight times tagging_loss."""
    raise NotImplementedError  # your code (about 3 lines)


# --- 9 decoder: paper 5.2; hard, 40 minutes --------------------------------------------------


def best_spans(start_logits, end_logits, context_mask, max_answer_length):
    """In each window the span i..j (inclusive) with the greatest start_logits[i] + end_logits[j].

    (B, T) x2, (B, T) bool, int -> scores (B,) in the logits' dtype, starts (B,) and ends (B,)
    int64. i and j are context tokens, i <= j, and the span has at most max_answer_length tokens.
    Ties: the earliest start, then the earliest end. A window without context scores -1e30 (its
    span does not matter). First write it with loops or a (B, T, T) table; both are right.
    """
    raise NotImplementedError  # your code (about 10 lines)


def decide(scores, nulls=None):
    """The window whose best span answers the question, and how much speaks against answering.

    (n,) best spans' scores of the question's n windows, lists or arrays -> index, no-answer score.
    The greatest score wins, ties go to the earliest. Robust training: the no-answer score is minus
    the greatest score. Default training also gives (n,) nulls, a window's start_logits[0] +
    end_logits[0]: the least null minus the greatest score. Above 0 the answer is left empty.
    """
    raise NotImplementedError  # your code (about 3 lines)


# --- 10 synthetic: paper 5.3; hard, 45 minutes -----------------------------------------------


def synthetic_answer(question, pool, rng, kind="mixed"):
    """Put a new sentence with another answer into the context, so that both answers are gold.

    Question, list of texts, random.Random, kind -> new Question (dataclasses.replace), or None.
    The new answer is drawn from the pool: of the first gold's type, and no substring of the context
    yet, upper and lower case alike. A text's type is a kind and its number of words (four or more
    count as four); the kind is the first of these that fits: a year (1000 to 2099, alone), a number
    (a digit somewhere), a name (a word that begins with A to Z), words. The sentence, by kind:
      "evidence"  from the last sentence start at or before the first gold to the first sentence end
                  at or after the gold's end, the new answer in the gold's place
      "template"  "<question without ?> is <new answer>."
      "mixed"     one of the two, drawn from rng
    Where it goes is drawn from rng: before any sentence or at the end, one space between
    sentences, never inside a gold. (A sentence ends with . ! or ? before a space and a capital.)
    Every answer of the result stands at its start; the new one is listed last. None for a question
    without golds, with an UNLOCATED one, or where the pool has no fitting answer.
    """
    raise NotImplementedError  # your code (about 30 lines)
