"""One hint for each classic mistake: function -> id -> what is wrong. checks.py gives them.

Where that is not sure, "Perhaps: " is put in front.
"""

ANY = {  # accidents that can happen in every exercise
    "none": "A `return` is missing, at the end or in one branch: it returned None.",
    "type": "Another type than the docstring says.",
    "shape": "Another shape than the docstring says: print the shapes of what you return.",
    "dtype": "Another dtype than the docstring says (an empty list makes an array of floats).",
    "endless": "A loop never ends: print what changes in it.",
    "in-place": "Your function changed its argument, which the caller still needs: work on a copy.",
    "nan": "NaN: 0 / 0 (no labels?), 0 * -inf (padding?), or softmax of -inf alone "
    "(mask upside down, or masked queries instead of keys?), or inf / inf (exp of large scores?).",
    "raised": "A value or a shape is not what you think: print it just before the line above.",
}

AXIS = "Softmax over the wrong axis: "
HALF = "The mean of what start and end cost: not their sum, not one of them."
SWAPPED = "Start logits belong to start labels, end logits to end labels: index 0 to index 0."
PADDING = "Padding takes part: only the positions that the mask admits count."
SIGN = "Something is left out on the way: the loss is -log of the softmax's probability."
STABLE = "The log of a probability that is 0 in float32: "
BATCH = "The mean over the batch, neither its sum nor its first row."
CUT = (
    "Cut off from the logits, so that nothing is learnt: no .item(), .tolist(), .detach(), .data, "
)
CUT += "no_grad or torch.tensor(...) between them and the loss."
UPSIDE_DOWN = "The mask is upside down: True is on what takes part."

HINTS = {
    "normalize_answer": {
        "lower": "Lower case is missing: every letter, by str.lower, which keeps ß.",
        "punctuation": "Punctuation stays: all marks of string.punctuation go, wherever they are.",
        "joined": "Punctuation is deleted, not replaced by a space: dog's becomes dogs.",
        "edges": "Punctuation goes inside of words and texts too, not at their edges alone.",
        "articles": "Articles stay: a, an and the go, at the beginning, inside and at the end.",
        "whole-words": "Articles are removed inside of words: only whole words go, and no letters.",
        "spaces": "White space comes last: single spaces, none around; an article leaves two.",
        "every": "Only one of two neighbouring articles goes, but all do.",
        "order": "The order of the steps: lower case, punctuation, articles, then white space.",
        "bounds": r"A word ends where \b says, at any mark: splitting at spaces misses «the».",
        "escape": r"The backslash stays: inside of [...] it only escapes what follows; use re.escape.",
        "ascii": r"Just the 32 ASCII marks of string.punctuation go: \w spares the underscore, and «» stay.",
        "kept": "Only punctuation and articles go: digits stay, and so do letters with their accents.",
    },
    "token_f1": {
        "harmonic": "Precision P is common / predicted words, recall R common / gold; 2PR / (P + R).",
        "percent": "A number from 0 to 1, not per cent.",
        "bag": "A word counts as often as *both* texts have it: bags, not sets.",
        "words": "These are bags of words, not of letters: split the text.",
        "nothing-common": "Without a common word F1 is 0, and P + R must not divide.",
        "normalised": "Normalise both texts first.",
        "empty": "Where a text has no words left, F1 is 1 if both have none, else 0.",
    },
    "token_spans": {
        "inclusive": "The last token belongs to the span: one token is (1, 1), not (1, 2).",
        "cover": "The run goes on to the last token that holds a character of the answer.",
        "blank": "A character may be in no token: take the first and the last token that hold *any* "
        "of the answer's.",
        "touching": "Ends are exclusive: a token that ends at 11 does not hold character 11.",
        "part": "A token that holds a part of the answer covers it; starts and ends may differ.",
        "no-token": "No token holds a character of the answer: -1, -1.",
        "unlocated": "A start of -1 (UNLOCATED) is no place: -1, -1. A start of 0 is one.",
        "every-answer": "A row for each answer, in order. Without answers: an int array, (0, 2).",
    },
    "window_bounds": {
        "stop": "The stop is one after the window's last token, and never beyond the context.",
        "short": "A context no longer than the stride has its one window too.",
        "empty": "Without tokens there is still one window, that of the question alone.",
        "extra": "After a window that reaches the end, another would show nothing new.",
        "overlap": "Neighbours *share* `stride` tokens: each starts room - stride after the last.",
        "last": "The last tokens need a window too, in step with the others, if only a short one.",
    },
    "golds_inside": {
        "shift": "Tokens are counted from the window's `start`, once; -1, -1 stays as it is.",
        "wholly": "A gold is inside if its first *and* its last token are; else its row is -1, -1.",
        "edge": "The tokens are start..stop-1: a gold may begin at `start` and end at stop-1.",
        "exclusive": "A gold's last token is inclusive, `stop` is not: inside is last < stop.",
        "moved-first": "Compare with start and stop before you count from `start`, or move `stop` too.",
        "minus-one": "What is not inside becomes -1, -1: neither 0 nor left as it was.",
        "unplaced": "A gold without tokens is in no window: it stays -1, -1, and keeps its row.",
        "every-gold": "One row for every gold, inside or not, in their order.",
    },
    "attention": {
        "softmax": "The weights are a softmax: equal scores have equal weights, which sum to 1.",
        "stable": "exp of a score of 100 is beyond float32: use softmax, which shifts the scores first.",
        "transpose": "The key is not transposed: q k^T swaps T and d, its last two axes.",
        "axis": AXIS + "the weights of each query sum to 1 over the *keys*, the last axis.",
        "scale": "Divide the scores by sqrt(d), d the width of a head, before the softmax.",
        "not-zero": "A padded key's score must be very low; a score of 0 still weighs e^0 = 1.",
        "upside-down": "The mask is upside down: it is True on real keys, False on padding.",
        "queries": "The mask is put on the queries; it is about keys: bring it to (B, 1, 1, T).",
        "both-masked": "Queries are masked as well as keys: the mask is about keys alone, (B, 1, 1, T).",
        "mask": "Softmax over padding: keys weigh 0 where the mask, as (B, 1, 1, T), is False.",
        "mask-first": "Mask the scores *before* the softmax, so that what is left sums to 1.",
        "batch": "Each row of the batch has its own mask, for all its heads: (B, 1, 1, T).",
        "dropout": "Dropout is for the weights, after the softmax; F.dropout scales what is left.",
        "keep": "p is the probability that a weight is *dropped*: F.dropout(weights, p), not 1 - p.",
        "gradient": "Cut off from its arguments, so that nothing is learnt: no .detach(), .data, .item(), "
        "no_grad or numpy on the way.",
    },
    "default_loss": {
        "half": HALF,
        "swapped": SWAPPED.replace("labels", "positions"),
        "sign": SIGN,
        "twice": "Softmax twice: log_softmax and cross_entropy take logits, not probabilities.",
        "sigmoid": "A sigmoid where a softmax belongs: the positions' probabilities sum to 1.",
        "over-batch": AXIS + "over the batch. It is over positions, the last axis; F.cross_entropy "
        "takes axis 1, so flatten to (2 B, T) first.",
        "over-sides": AXIS + "start against end. It is over positions, the last axis.",
        "cls": "Position 0, [CLS], is left out; it is the hidden answer, a target like any other.",
        "padding": PADDING,
        "upside-down": UPSIDE_DOWN,
        "batch": BATCH,
        "stable": STABLE + "use log_softmax or cross_entropy.",
        "over-t": "Divided by T, the positions: each row has one target, so take the mean of the rows.",
        "lengths": "Long rows count more: do each row alone, then take the mean of the rows.",
        "gradient": CUT,
        "formula": "By hand: softmax over a row's positions, -log at its target; mean of all.",
    },
    "qa_loss": {
        "half": HALF,
        "swapped": SWAPPED,
        "sign": SIGN,
        "twice": "Softmax twice: log_softmax and cross_entropy take logits, not probabilities.",
        "sigmoid": "A sigmoid where a softmax belongs: the positions' probabilities sum to 1.",
        "over-batch": AXIS + "over the batch. It is over positions, the last axis (F.cross_entropy "
        "takes axis 1).",
        "over-sides": AXIS + "start against end. It is over positions, the last axis.",
        "one-over-k": "k labels have a target of 1/k each: the mean of their -log p.",
        "summed": "The mean of the labels' -log p, not -log of their summed probability.",
        "kl": "The cross entropy, not the KL divergence: F.kl_div takes off the target's own entropy, "
        "ln k or ln n.",
        "over-t": "Divided by T or n, the positions: *sum* the target, 1/k or 1/n each, times -log p.",
        "every-gold": "Every labelled position counts, not the first or the last alone.",
        "own-k": "Each row, start and end, has its own k: sum labels over the last axis alone.",
        "no-gold": "A row without labels has a target of 1/n everywhere, not a loss of 0.",
        "cls": "[CLS] as a label? Without labels no place is right: 1/n each.",
        "smooth": "1/n is the target only where nothing is labelled.",
        "padding": PADDING,
        "upside-down": UPSIDE_DOWN,
        "n": "n counts the positions that the mask admits; padding is no target.",
        "cls-left-out": "[CLS] is one of the n positions, and in the softmax, like all that the mask admits.",
        "labelled-padding": "A label under padding counts for nothing, in k neither.",
        "batch": BATCH,
        "per-row": "A row has a gold, another has none: each row has a target of its own.",
        "stable": STABLE + "use log_softmax.",
        "lengths": "Long rows count more: do each row alone, then take the mean of the rows.",
        "gradient": CUT,
        "formula": "By hand: softmax over a row's positions, -log at each label, mean over its k.",
    },
    "tagging_loss": {
        "sigmoid": "Label 1 costs -ln sigmoid(x), label 0 costs -ln(1 - sigmoid(x)).",
        "softmax": "A softmax where a sigmoid belongs: each position is a yes or no of its own.",
        "twice": "The sigmoid is taken twice: ..._with_logits takes logits.",
        "sign": "Label 1 costs -ln sigmoid(x): mind the logit's sign, the minus and the log.",
        "label-0-free": "Label 0 costs something too: -ln(1 - sigmoid(x)).",
        "sum": "The *sum* over positions, not their mean; then the mean over start and end and the rows.",
        "half": HALF,
        "swapped": SWAPPED,
        "weight": "positive_weight (2 unless given) times the loss where the label is 1, once.",
        "weight-twice": "positive_weight counts twice: what weight= or pos_weight= has in it is not "
        "multiplied again.",
        "both-labels": "positive_weight is for label 1 alone, not for every position.",
        "label-0": "positive_weight is put on the label 0; it belongs to the label 1.",
        "cls": "Without a gold every label is 0, that of [CLS] too.",
        "padding": PADDING,
        "upside-down": UPSIDE_DOWN,
        "batch": BATCH,
        "stable": STABLE + "take the loss from the logit (F.binary_cross_entropy_with_logits).",
        "gradient": CUT,
    },
    "robust_loss": {
        "qa": "qa_weight times qa_loss is one part: alone where tagging_weight is 0.",
        "tagging": "tagging_weight times tagging_loss is one part: alone where qa_weight is 0.",
        "weights": "The sum of qa_weight times qa_loss and tagging_weight times tagging_loss, 2 and 1 "
        "unless given.",
        "product": "The two parts are multiplied; they are added.",
        "exchanged": "The two weights are swapped: qa_weight (2) is for qa_loss, tagging_weight (1) for "
        "tagging_loss.",
        "passed-on": "positive_weight, as given, goes on to tagging_loss.",
        "padding": "Both losses leave padding out: hand the mask on.",
        "gradient": CUT,
    },
    "best_spans": {
        "sum": "Try every start with every end by hand; the sum counts, start first, then end.",
        "swapped": "Start and end are swapped: logits[0] is the start's, and starts come first.",
        "one-side": "The same logits for start and end: logits[0] is the start, logits[1] the end.",
        "probabilities": "Logits are added as they are: no softmax, no sigmoid, no log of them.",
        "product": "Start and end logit are multiplied; they are added.",
        "half": "The score is the sum, not the mean.",
        "shortlist": "A list of the best starts and of the best ends may not hold the best span: try all.",
        "together": "Start and end are chosen together: the best start alone may have no good end.",
        "end-before-start": "The end stands before the start: that is no span. Independent argmaxes?",
        "exclusive": "An exclusive end: a span i..j includes j, and one token is i..i.",
        "limit": "i..j has j - i + 1 tokens: exactly max_answer_length is allowed, one more is not.",
        "context": "Start and end are context tokens; [CLS], question and padding hold no answer.",
        "upside-down": UPSIDE_DOWN,
        "from-context": "Positions count from the window's first token, not the context's first.",
        "below-zero": "Outside the context belongs minus infinity, not 0; a best sum may be below 0.",
        "ties": "Equal sums: the earliest start, then the earliest end.",
        "no-context": "A row without context scores -1e30, which is finite; other rows are as ever.",
        "float64": "The sum is rounded in float32: make the logits double before you add.",
    },
    "decide": {
        "sign": "The no-answer score is null (or 0) *minus* the best score.",
        "robust": "Robust training: minus the *greatest* score, not the least, not the sum.",
        "index": "The index is always a window's: to answer or not is decided later, by the score.",
        "best": "The window with the greatest score answers; null scores have no say in that.",
        "ties": "Equal scores: the earliest window.",
        "null": "Default training: the least null minus the best score.",
        "least": "The greatest score alone chooses the window; the *least* null of all windows counts.",
        "arrays": "Lists and arrays alike: np.argmax(scores), and `null_scores is None`, not `if null_scores`.",
    },
    "synthetic_answer": {
        "both": "Both answers are gold: the old ones stay, the new one is added.",
        "gold-first": "The original golds are listed first, the new answer last.",
        "none": "It returned None, though the pool has another answer: which `if` is it, or is a "
        "`return` missing?",
        "first": "The sentence and the place of the *first* gold are what counts.",
        "evidence": "The sentence around the gold, and it alone, with Rome in Oslo's place.",
        "slot": "Before a sentence or at the end, one space between sentences, the rest as it was.",
        "offsets": "An answer's text stands at its start; golds behind the new sentence have moved.",
        "opens": "A gold at the first character of a sentence moves too when the new sentence "
        "goes before it.",
        "random-slot": "The place is drawn: every bound must come up, also at a gold's start or end; "
        "only those inside of a gold are left out.",
        "bounds": "From the last bound *at* or before the gold's start to the first *at* or after its "
        "end: a gold may open a sentence, hold a bound, or end the text.",
        "own-split": "Let sentence_bounds say where sentences begin: '. ' is not enough, since 'Dr.' ends "
        "none and '?' does.",
        "by-offset": "By offsets, not by str.replace or str.find: the answers' texts may stand "
        "elsewhere too, inside of a word or in the question.",
        "template": "The question without its '?', then ' is ', the new answer and a full stop.",
        "mixed": "Both kinds of sentence must come up.",
        "names-gold": "Where the rest of the sentence holds a gold's text once more, in whatever case, the "
        "template takes its place.",
        "fitted": "fitted(answer, what stands before it) gives the article and the capital; its text is "
        "the new answer.",
        "full-stop": "A full stop is put at the end of a sentence that has none, and only there.",
        "same-type": "Not any text of the pool: let another_answer draw one of the type asked for.",
        "new": "What the context already holds is no new answer: let another_answer draw.",
        "inside-gold": "A gold may hold the end of a sentence: nothing is put inside of it, be it the "
        "first or not.",
        "rest": "Id, question and title stay as they were.",
        "rng": "Draw place, answer and kind from `rng` alone, so that one seed gives one result.",
        "unanswerable": "A question without golds: None.",
        "no-other": "No answer in the pool fits: None.",
        "unlocated": "A gold without a place in the text, the first or another: None.",
    },
}
