"""The encoder against transformers, and checkpoints in and out.

fixtures/ holds small encoders and the numbers that transformers made of them.
"""

import json
import shutil
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn.functional import pad

from data import InputError
from model import attention, load_model, new_model, save_model

FIXTURES = Path(__file__).parent / "fixtures"
WEIGHTS = "model.safetensors"
INPUTS = "input_ids", "segment_ids", "mask"
families = pytest.mark.parametrize("family", ["bert", "roberta"])
PAIRS = [  # mixed case, accents composed and not, punctuation, special tokens written in the text
    ("Who opened the CAFÉ?", "The café in Zürich, near O'Neil's (since 1998), was Ada LEE's."),
    ("when?", "\tAda's  cafe\u0301 -- the \u6771 one; naïve \U0001f600 İstanbul."),
    ("Is [SEP] a token", "as </s> is, or <mask> or [MASK]?"),
]


def expected(family):
    """The recorded batch and what transformers made of it -> {name: tensor}."""
    return load_file(FIXTURES / family / "expected.safetensors")


@torch.no_grad()
def run(model, batch):
    inputs = [batch[name] for name in INPUTS]
    start, end = model(*inputs)
    return {"hidden": model.hidden_states(*inputs), "start_logits": start, "end_logits": end}


def assert_close(ours, theirs, mask, tolerance=1e-4):
    """Every output that `theirs` has is equal at positions that are not padding."""
    names = {"hidden", "start_logits", "end_logits"} & theirs.keys()
    assert names, f"nothing to compare in {list(theirs)}"
    for name in names:
        difference = (ours[name] - theirs[name])[mask].abs().max().item()
        assert difference < tolerance, f"{name} differs by {difference:.2g}, allowed {tolerance:g}"


def random_batch(model, length):
    """Three rows, the last two padded."""
    config, mask = model.config, torch.arange(length) < torch.tensor([[length], [length // 2], [3]])
    torch.manual_seed(0)
    ids = torch.randint(5, config.vocab_size, mask.shape).where(mask, config.pad_token_id)
    segments = torch.randint(config.type_vocab_size, mask.shape).where(mask, 0)
    return {"input_ids": ids, "segment_ids": segments, "mask": mask}


NULL = object()
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 437951328\n"


def changed(tmp_path, family, weights=None, tokenizer=(), remove="", add="", **config):
    """A copy of a fixture: weights changed, other values in JSON, files removed and added.

    A value of None takes its key out; NULL is a null in the file.
    """
    folder = shutil.copytree(FIXTURES / family, tmp_path / family)
    for name, values in (("config.json", config), ("tokenizer.json", dict(tokenizer))):
        found = json.loads((folder / name).read_text("utf-8")) | values
        found = {k: x for k, x in found.items() if x is not None or k not in values}
        found = {k: None if x is NULL else x for k, x in found.items()}
        (folder / name).write_text(json.dumps(found), "utf-8")
    if weights:
        tensors = weights(load_file(folder / WEIGHTS))
        save_file({name: x.clone() for name, x in tensors.items()}, folder / WEIGHTS)
    for name in remove.split():
        (folder / name).unlink()
    for name in add.split():
        (folder / name).write_text(POINTER)  # of Git LFS
    return folder


@families
def test_same_numbers_as_transformers_had(family):
    model, batch = load_model(FIXTURES / family)[0], expected(family)
    assert not model.training, "load_model must return the model in evaluation mode"
    ours = run(model, batch)
    assert_close(ours, batch | {"hidden": batch["hidden_states"]}, batch["mask"])


@families
def test_padding_has_no_influence(family):
    """Neither which ids are there, nor whether there is any."""
    model, batch = load_model(FIXTURES / family)[0], expected(family)
    whole = run(model, batch | {"input_ids": batch["input_ids"].where(batch["mask"], 7)})
    for row, length in enumerate(batch["mask"].sum(1).tolist()):
        alone = {name: batch[name][row : row + 1, :length] for name in INPUTS}
        part = {name: x[row : row + 1, :length] for name, x in whole.items()}
        assert_close(run(model, alone), part, alone["mask"], tolerance=1e-5)


@families
def test_padding_beyond_the_table_of_positions_has_no_influence(family):
    """As batches have it, whose lengths are multiples of 16."""
    model, _ = load_model(FIXTURES / family)
    assert model.max_length == {"bert": 80, "roberta": 128}[family]
    batch = random_batch(model, model.max_length)
    longer = {name: pad(x, (0, 64)) for name, x in batch.items()}
    found = {name: x[:, : model.max_length] for name, x in run(model, longer).items()}
    assert_close(found, run(model, batch), batch["mask"], tolerance=1e-5)


@pytest.mark.parametrize("gradient", [False, True])
def test_attention_equals_loops(gradient):
    generator = torch.Generator().manual_seed(0)
    query, key, value = 3 * torch.randn(3, 3, 2, 7, 4, generator=generator)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    ones, rate = torch.ones(1000, 1, 1, 4), 0.25
    with torch.set_grad_enabled(gradient):  # there is a way of its own without gradients
        ours = attention(query, key, value, mask)
        zeros = (attention(ones, ones, ones, ones[:, 0, 0, :1].bool(), rate) == 0).float().mean()
    assert abs(zeros - rate) < 0.06, f"{zeros:.0%} of weights were dropped, not {rate:.0%}"
    for b, h, i in np.ndindex(3, 2, 7):
        admitted = [j for j in range(7) if mask[b, j]]
        weights = [float((query[b, h, i] @ key[b, h, j] / 4**0.5).exp()) for j in admitted]
        theirs = sum(w * value[b, h, j] for w, j in zip(weights, admitted)) / sum(weights)
        difference = (ours[b, h, i] - theirs).abs().max().item()
        assert difference < 1e-5, f"row {b}, head {h}, query {i} differ by {difference:.2g}"


def test_the_head_is_float32_under_autocast():
    model, batch = load_model(FIXTURES / "bert")[0], expected("bert")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = run(model, batch)["start_logits"]
    assert logits.dtype == torch.float32, f"logits are {logits.dtype}"
    rounded = (logits == logits.bfloat16()).float().mean().item()
    assert rounded < 0.1, f"{rounded:.0%} of logits are bfloat16 numbers: the head ran in them"


def test_with_all_attention_dropped_no_value_counts(tmp_path):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 1.0}
    (model, _), batch = load_model(changed(tmp_path, "bert", **rates)), expected("bert")
    dropped = run(model.train(), batch)
    for layer in model.layers:
        torch.nn.init.zeros_(layer.value.weight)
        torch.nn.init.zeros_(layer.value.bias)
    assert_close(run(model.eval(), batch), dropped, batch["mask"])


def test_dropout_is_where_bert_has_it(tmp_path):
    """With all dropped, embeddings and both parts of the layers, four LayerNorms are left."""
    model, _ = load_model(changed(tmp_path, "bert", hidden_dropout_prob=1.0))
    tensors, left = load_file(FIXTURES / "bert" / WEIGHTS), torch.zeros(32)
    for part in "0.attention.output", "0.output", "1.attention.output", "1.output":
        norm = [tensors[f"bert.encoder.layer.{part}.LayerNorm.{x}"] for x in ("weight", "bias")]
        left = torch.nn.functional.layer_norm(left, left.shape, *norm, eps=1e-12)
    difference = (run(model.train(), expected("bert"))["hidden"] - left).abs().max().item()
    assert difference < 1e-5, f"something was not dropped: differs by {difference:.2g}"


# --- Checkpoints out and in ----------------------------------------------------------------------


SPECIALS = {"bert": "[CLS] [SEP] [PAD] [UNK] [MASK]", "roberta": "<s> </s> <pad> <unk> <mask>"}
SAVED = ["bert", "roberta", "toy", "bert with roberta's", "roberta with bert's"]


@pytest.fixture(scope="module", params=SAVED)
def saved(request, tmp_path_factory):
    """(model, tokenizer, folder they were saved in); the tokenizer truncated when it was.

    Some have the special tokens of the other family, as HerBERT has.
    """
    family, _, theirs = request.param.partition(" with ")
    if family == "toy":
        model, tokenizer = new_model([text for pair in PAIRS for text in pair], 60)
    else:
        model, tokenizer = load_model(FIXTURES / family)
    if theirs:
        text = tokenizer.to_str()
        for own, other in zip(*(SPECIALS[name].split() for name in (family, theirs[:-2]))):
            text = text.replace(f'"{own}"', f'"{other}"')
        tokenizer = Tokenizer.from_str(text)
    folder = tmp_path_factory.mktemp(family) / "checkpoint"
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    save_model(model, tokenizer, folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return model.eval(), tokenizer, folder


def test_saved_model_opens_in_transformers_with_nothing_missing_and_nothing_new(saved):
    auto = pytest.importorskip("transformers").AutoModelForQuestionAnswering
    model, _, folder = saved
    theirs, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), f"transformers says {report}"
    assert theirs.config.architectures == [type(theirs).__name__]
    names = load_file(folder / WEIGHTS).keys() ^ theirs.state_dict().keys()
    assert not names, f"transformers would name them otherwise: {names}"
    batch = random_batch(model, model.max_length)
    ids, segments, mask = (batch[name].long() for name in INPUTS)
    with torch.no_grad():
        found = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask)
    assert_close(run(model, batch), found, batch["mask"])


def test_saved_tokenizer_in_transformers_gives_the_same_ids_and_can_pad(saved):
    auto = pytest.importorskip("transformers").AutoTokenizer
    model, tokenizer, folder = saved
    theirs = auto.from_pretrained(folder)
    for pair in PAIRS:
        ours, out = tokenizer.encode(*pair), theirs(*pair, return_offsets_mapping=True)
        tokens = theirs.convert_ids_to_tokens(out["input_ids"])
        assert out["input_ids"] == ours.ids, f"ours {ours.tokens}, theirs {tokens}"
        assert out["token_type_ids"] == ours.type_ids, f"segments of {tokens}"
        assert out["offset_mapping"] == ours.offsets, f"offsets of {tokens}"
    padded = theirs(["who"], padding="max_length", max_length=9)["input_ids"][0]
    assert padded[-1] == model.config.pad_token_id, f"padded with {padded}"
    assert theirs.model_max_length == model.max_length
    names = SPECIALS["roberta" if "<s>" in ours.tokens else "bert"].split()
    roles = [theirs.cls_token, theirs.sep_token, theirs.pad_token, theirs.unk_token]
    assert [*roles, theirs.mask_token] == names
    lowered = json.loads(tokenizer.to_str())["normalizer"] or {"lowercase": False}
    kept = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert kept["do_lower_case"] == lowered["lowercase"], "casing must travel along"


def test_saved_and_loaded_again_it_is_equal(saved):
    model, tokenizer, folder = saved
    again, tokenizer_again = load_model(folder, head_required=True)
    assert again.config == model.config and tokenizer_again.to_str() == tokenizer.to_str()
    after = again.state_dict()
    different = [name for name, x in model.state_dict().items() if not torch.equal(x, after[name])]
    assert not different, f"changed: {different}"


def without(part):
    return lambda tensors: {name: x for name, x in tensors.items() if part not in name}


def renamed(parts):
    def new(name):
        return reduce(lambda found, part: found.replace(part, parts[part]), parts, name)

    return lambda tensors: {new(name): x for name, x in tensors.items()}


ABSENT = "pad_token_id", "hidden_act", "hidden_dropout_prob", "initializer_range"
NEW = "cls.predictions.bias", "pooler.dense.bias", "embeddings.position_ids", "lm_head.bias"
OLD = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
QUIRKS = {
    "no prefix": {"weights": renamed({"roberta.": "", "bert.": ""})},
    "gamma and beta": {"weights": renamed(OLD)},
    "leftovers of pre-training": {"weights": lambda ts: ts | {k: torch.ones(2) for k in NEW}},
    "half precision": {"weights": lambda ts: {k: x.half() for k, x in ts.items()}},
    "keys that have the model type's default": dict.fromkeys(ABSENT),
    "nulls": dict.fromkeys(ABSENT, NULL),
}


@families
@pytest.mark.parametrize("quirk", QUIRKS)
def test_quirks_of_the_hub_change_no_number(quirk, family, tmp_path):
    bert = {"model_type": NULL} if (quirk, family) == ("nulls", "bert") else {}  # the default
    model, _ = load_model(changed(tmp_path, family, **QUIRKS[quirk], **bert), head_required=True)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    batch = expected(family)
    assert_close(run(model, batch), batch, batch["mask"], 0.05 if "half" in quirk else 1e-4)


def test_a_model_of_one_segment_reads_a_tokenizer_that_numbers_two(tmp_path):
    def first(tensors):
        return {k: x[:1] if "token_type" in k else x for k, x in tensors.items()}

    model, tokenizer = load_model(changed(tmp_path, "bert", first, type_vocab_size=1))
    assert {*tokenizer.encode("who", "it").type_ids} == {0, 1}
    batch = expected("bert")
    zero = run(load_model(FIXTURES / "bert")[0], batch | {"segment_ids": 0 * batch["segment_ids"]})
    assert_close(run(model, batch), zero, batch["mask"])


QUERY = "encoder.layer.1.attention.self.query.weight"
CUT = {"weights": lambda ts: {k: x[:-1] if QUERY in k else x for k, x in ts.items()}}
CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": "A"}
BERT = json.loads((FIXTURES / "bert" / "tokenizer.json").read_text("utf-8"))
NO_UNKNOWN = BERT["model"] | {"unk_token": "[NONE]"}
WORDS = {"type": "WordLevel", "vocab": BERT["model"]["vocab"], "unk_token": "[NONE]"}
TOO_HIGH = BERT["model"] | {"vocab": BERT["model"]["vocab"] | {"ice": 500}}
PAIR = BERT["post_processor"]["pair"]
NOT_APART = BERT["post_processor"] | {"pair": PAIR[:2] + PAIR[3:]}  # nothing between the texts
REFUSED = [  # fixture, how it is changed, words that the message must hold
    ("roberta", {"model_type": "xlm-roberta"}, "model_type"),
    ("bert", {"hidden_act": "gelu_new"}, "hidden_act"),
    ("roberta", {"remove": "tokenizer.json", "add": "vocab.json merges.txt"}, "README"),
    ("bert", {"remove": WEIGHTS, "add": "model-00001-of-00002.safetensors"}, "README"),
    ("bert", {"remove": "config.json"}, "config.json"),
    ("bert", {"weights": without(QUERY)}, QUERY),
    ("bert", {"weights": without("qa_outputs.bias")}, "qa_outputs.bias"),
    ("bert", {"num_hidden_layers": 1}, "layer.1."),
    ("roberta", {"model_type": "bert"}, "embeddings"),
    ("roberta", {"weights": renamed({"roberta.": "_orig_mod."})}, "_orig_mod.e"),
    ("bert", CUT, "query.weight"),
    ("bert", {"vocab_size": 133}, "tokens"),
    ("bert", {"hidden_size": "wide"}, "bert"),
    ("bert", {"add": WEIGHTS}, WEIGHTS),
    ("bert", {"add": "config.json"}, "config.json"),
    ("bert", {"add": "tokenizer.json"}, "tokenizer.json"),
    ("bert", {"tokenizer": {"normalizer": CHARSMAP}}, "Precompiled"),  # tokenizers panics
    ("bert", {"tokenizer": {"post_processor": NULL}}, "post-processor"),
    ("bert", {"tokenizer": {"post_processor": NOT_APART}}, "post-processor"),
    ("bert", {"tokenizer": {"model": NO_UNKNOWN}}, "tokenizer.json"),
    ("bert", {"tokenizer": {"model": WORDS}}, "tokenizer.json"),
    ("bert", {"tokenizer": {"model": TOO_HIGH}}, "500"),
]


@pytest.mark.parametrize(("family", "change", "words"), REFUSED)
def test_refused_in_one_sentence(family, change, words, tmp_path):
    with pytest.raises(InputError) as caught:
        load_model(changed(tmp_path, family, **change))
    message = str(caught.value)
    assert words in message and "\n" not in message, f"not one line with {words}: {message}"


def test_the_two_lines_of_readme_convert_a_checkpoint_of_2019(tmp_path):
    transformers = pytest.importorskip("transformers")
    SRC, DST = changed(tmp_path, "bert", renamed(OLD)), tmp_path / "converted"
    vocab = Tokenizer.from_file(str(SRC / "tokenizer.json")).get_vocab()
    words = [word.replace("ada", "Ada") for word in sorted(vocab, key=vocab.get)]
    (SRC / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
    torch.save(load_file(SRC / WEIGHTS), SRC / "pytorch_model.bin")
    for name in WEIGHTS, "tokenizer.json":
        (SRC / name).unlink()

    transformers.AutoModel.from_pretrained(SRC).save_pretrained(DST)
    transformers.AutoTokenizer.from_pretrained(SRC, do_lower_case=False).save_pretrained(DST)

    (model, tokenizer), batch = load_model(DST), expected("bert")
    assert_close(run(model, batch), {"hidden": batch["hidden_states"]}, batch["mask"])
    assert tokenizer.encode("Ada").tokens == ["[CLS]", "Ada", "[SEP]"], "the case must be kept"
    assert tokenizer.encode("where").ids[1] == vocab["where"], "the ids are others"
