"""The encoder against transformers, and checkpoints in and out.

The expected numbers of the three small encoders in fixtures/ come from transformers 5.23 and are
compared without it; what a saved checkpoint must do elsewhere is asked of transformers itself.
EQA_MINILM names a folder with a real encoder (all-MiniLM-L6-v2); without it those cases are skipped.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from data import InputError, Question, make_windows
from model import Config, QAModel, attention, load_model, save_model

FIXTURES = Path(__file__).parent / "fixtures"
FAMILIES = ["bert", "roberta", "spanbert"]
MINILM = os.environ.get("EQA_MINILM")
NEEDS_MINILM = pytest.mark.skipif(not MINILM, reason="EQA_MINILM (a folder) is not set")
PAIRS = [  # mixed case, accents composed and not, punctuation, special tokens written in the text
    (
        "Who opened the CAFÉ?",
        "The café in Zürich, near O'Neil's (since 1998), was opened by Ada LEE.",
    ),
    ("when?", "\tAda's  cafe\u0301 -- the \u6771 one; naïve \U0001f600 İstanbul."),
    ("Is [SEP] a token", "as </s> is, or <mask> or [MASK]?"),
]


def expected(family):
    """(the batch and what transformers makes of it, the text pairs it was made from)"""
    path = FIXTURES / family / "expected.safetensors"
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["pairs"])


def run(model, batch):
    """{hidden_states, start_logits, end_logits} of our model."""
    inputs = batch["input_ids"], batch["segment_ids"], batch["mask"]
    with torch.no_grad():
        hidden, (start, end) = model.hidden_states(*inputs), model(*inputs)
    return {"hidden_states": hidden, "start_logits": start, "end_logits": end}


def assert_close(ours, theirs, mask, tolerance=1e-4):
    """Every output that `theirs` has is equal at non-padding positions."""
    for name in {"hidden_states", "start_logits", "end_logits"} & set(theirs):
        difference = (ours[name] - theirs[name])[mask].abs().max().item()
        assert difference < tolerance, f"{name} differs by {difference:.2g}, allowed {tolerance:g}"


def random_batch(config, positions, seed=0):
    """Three rows, the last two padded; ids from 5 on keep clear of the special tokens."""
    generator = torch.Generator().manual_seed(seed)
    shape = 3, positions
    mask = torch.arange(positions) < torch.tensor([[positions], [positions * 2 // 3], [3]])
    ids = torch.randint(5, config.vocab_size, shape, generator=generator)
    segments = torch.randint(config.type_vocab_size, shape, generator=generator)
    return {
        "input_ids": ids.masked_fill(~mask, config.pad_token_id),
        "segment_ids": segments.masked_fill(~mask, 0),
        "mask": mask,
    }


def longest_input(config):
    """RoBERTa's positions start at padding_idx + 1, so it cannot use them all."""
    roberta = config.model_type == "roberta"
    return config.max_position_embeddings - (config.pad_token_id + 1 if roberta else 0)


# --- The encoder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_same_numbers_as_transformers_had(family):
    """Hidden states and logits equal the recorded ones, in eval mode straight after loading."""
    batch, _ = expected(family)
    model, _ = load_model(FIXTURES / family)
    ours = run(model, batch)
    assert_close(ours, batch, batch["mask"])
    assert not model.training, "load_model must return the model in eval mode"
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "halves must become float32"


@pytest.mark.parametrize(
    "family", [*FAMILIES, pytest.param(MINILM, marks=NEEDS_MINILM, id="minilm")]
)
def test_same_hidden_states_as_transformers_at_full_length(family):
    """Up to the last position of the table, with random ids and segments, beside transformers."""
    transformers = pytest.importorskip("transformers")
    folder = FIXTURES / family
    model, _ = load_model(folder)
    theirs = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = random_batch(model.config, longest_input(model.config))
    with torch.no_grad():
        hidden = theirs(
            input_ids=batch["input_ids"],
            token_type_ids=batch["segment_ids"],
            attention_mask=batch["mask"].long(),
        ).last_hidden_state
    assert_close(run(model, batch), {"hidden_states": hidden}, batch["mask"])


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_has_no_influence(family):
    """Other ids and segments at padded positions, or no padding at all, leave the rest as it was."""
    model, _ = load_model(FIXTURES / family)
    batch = random_batch(model.config, 40)
    other = batch | {"input_ids": batch["input_ids"].masked_fill(~batch["mask"], 0)}
    assert_close(run(model, other), run(model, batch), batch["mask"], tolerance=1e-6)
    for row, length in enumerate(batch["mask"].sum(1).tolist()):
        alone = {name: batch[name][row : row + 1, :length] for name in batch}
        whole = {name: out[row : row + 1, :length] for name, out in run(model, batch).items()}
        assert_close(run(model, alone), whole, alone["mask"], tolerance=1e-5)


def attention_by_loops(query, key, value, mask):
    """softmax(q k / sqrt(d)) v one query at a time, over the keys that are not masked."""
    out = np.zeros_like(query)
    for b, h, i in np.ndindex(query.shape[:3]):
        keys = [j for j in range(key.shape[2]) if mask[b, j]]
        scores = [query[b, h, i] @ key[b, h, j] / np.sqrt(query.shape[3]) for j in keys]
        weights = np.exp(np.array(scores) - max(scores))
        for weight, j in zip(weights / weights.sum(), keys, strict=True):
            out[b, h, i] += weight * value[b, h, j]
    return out


def test_attention_by_loops():
    """`attention` equals the loops; masked keys and values neither matter nor get a gradient."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (3 * torch.randn(3, 3, 2, 7, 4, generator=generator)).unbind()
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    inputs = [x.requires_grad_() for x in (query, key, value)]
    loops = attention_by_loops(*(x.detach().double().numpy() for x in inputs), mask.numpy())
    for gradient in (False, True):  # an implementation may take another way without gradients
        with torch.set_grad_enabled(gradient):
            ours = attention(*inputs, mask)
        difference = np.abs(ours.detach().numpy() - loops).max()
        assert difference < 1e-5, f"differs from the loops by {difference:.2g}, {gradient=}"

    masked = ~mask[:, None, :, None]
    changed = attention(query, key.masked_fill(masked, 1e4), value.masked_fill(masked, -1e4), mask)
    assert torch.equal(changed, ours), f"masked keys move it by {(changed - ours).abs().max():.2g}"
    nothing = attention(query, key, value, torch.zeros_like(mask))  # a row without any key
    assert nothing.isfinite().all(), "a row that is all padding is not finite"
    ((ours**2).sum() + 0 * nothing.sum()).backward()  # 0 * NaN would show
    for name, x in zip(("query", "key", "value"), inputs, strict=True):
        assert x.grad.isfinite().all(), f"gradient of {name} is not finite"
    for name, x in (("key", key), ("value", value)):
        assert not x.grad.masked_select(masked).any(), f"a masked {name} has a gradient"


@pytest.mark.parametrize("gradient", [False, True])
def test_attention_dropout(gradient):
    """With a value of unit vectors the output is the weights: a share p is 0, the rest / (1 - p)."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 5, 4, 64, 8).unbind()
    value, mask = torch.eye(64).expand(5, 4, 64, 64), torch.ones(5, 64, dtype=torch.bool)
    for p in (0.1, 0.3):
        with torch.set_grad_enabled(gradient):
            weights = attention(query, key, value, mask, p) / attention(query, key, value, mask)
        kept = weights != 0
        wrong = (weights[kept] * (1 - p) - 1).abs().max().item()
        assert wrong < 1e-3, f"p = {p}: kept weights are off by {wrong:.2g}"
        dropped = 1 - kept.float().mean().item()
        assert abs(dropped - p) < 0.01, f"p = {p}: a share of {dropped:.3f} was dropped"


def test_head_is_float32_under_autocast():
    """Under bfloat16 the logits are float32 and were not rounded to bfloat16 on the way."""
    batch, _ = expected("bert")
    model, _ = load_model(FIXTURES / "bert")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = run(model, batch)
    for name in ("start_logits", "end_logits"):
        assert ours[name].dtype == torch.float32, f"{name} is {ours[name].dtype}"
        rounded = (ours[name] == ours[name].bfloat16().float()).float().mean().item()
        assert rounded < 0.1, f"{rounded:.0%} of {name} are bfloat16 numbers: the head ran in them"
    assert_close(ours, batch, batch["mask"], tolerance=0.3)


@pytest.mark.parametrize(("hidden", "attended"), [(0.5, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_dropout_in_the_model(hidden, attended):
    """Each of the two dropouts makes training passes differ, neither is active in eval mode."""
    rates = {"hidden_dropout_prob": hidden, "attention_probs_dropout_prob": attended}
    model, _ = scratch(tokenizer_of("bert"), **rates)
    batch = random_batch(model.config, 20)
    still = run(model, batch)["start_logits"]
    assert torch.equal(run(model, batch)["start_logits"], still), "eval mode must repeat itself"
    first, second = (run(model.train(), batch)["start_logits"] for _ in range(2))
    if hidden or attended:
        assert not torch.equal(first, second), f"dropout {rates} does nothing"
    else:
        assert_close({"start_logits": first}, {"start_logits": still}, batch["mask"], 1e-5)


def test_dropout_where_bert_has_it(tmp_path):
    """When embeddings and both parts of a layer are dropped, two LayerNorms of biases are left."""
    model, tokenizer = scratch(tokenizer_of("bert"), hidden_dropout_prob=1 - 2**-14)
    save_model(model, tokenizer, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    layer = "bert.encoder.layer.0"
    left = torch.nn.functional.layer_norm(
        weights[f"{layer}.attention.output.LayerNorm.bias"],
        (model.config.hidden_size,),
        weights[f"{layer}.output.LayerNorm.weight"],
        weights[f"{layer}.output.LayerNorm.bias"],
        model.config.layer_norm_eps,
    )
    hidden = run(model.train(), random_batch(model.config, 4))["hidden_states"]
    difference = (hidden - left).abs().max().item()
    assert difference < 1e-5, f"something was not dropped: differs by {difference:.2g}"


# --- Tokenizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizer_of_the_family(family):
    """Same ids and segments as recorded: no truncation or padding left, SpanBERT's case kept."""
    batch, pairs = expected(family)
    _, tokenizer = load_model(FIXTURES / family)
    for row, pair in enumerate(pairs):
        encoding = tokenizer.encode(*pair)
        mask = batch["mask"][row]
        assert encoding.ids == batch["input_ids"][row][mask].tolist(), encoding.tokens
        assert encoding.type_ids == batch["segment_ids"][row][mask].tolist(), encoding.tokens


def test_casing_of_a_vocab_txt(tmp_path):
    """With a vocab.txt alone an uncased vocabulary is lower-cased, a cased one (SpanBERT's) is not."""
    folder = shutil.copytree(FIXTURES / "bert", tmp_path / "bert")
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in settings["model"]["vocab"]))
    (folder / "tokenizer.json").unlink()
    (_, uncased), (_, cased) = load_model(folder), load_model(FIXTURES / "spanbert")
    assert uncased.encode("ADA Café").tokens == ["[CLS]", "ada", "cafe", "[SEP]"]
    assert cased.encode("ADA Café").tokens == ["[CLS]", "A", "##D", "##A", "Café", "[SEP]"]


# --- Saving: what transformers makes of it -------------------------------------------------------


def scratch(tokenizer, model_type="bert", **changes):
    """A new model of our own with large enough random weights."""
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 150,
        "type_vocab_size": 1 if model_type == "roberta" else 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": tokenizer.token_to_id("<pad>" if model_type == "roberta" else "[PAD]"),
        "model_type": model_type,
        "question_overlap": False,
    }
    torch.manual_seed(0)
    model = QAModel(Config(**settings | changes)).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model, tokenizer


def toy_tokenizer():
    """Words split at spaces and punctuation, no normalizer, no [MASK]; ids in an order of its own."""
    specials = ["[UNK]", "[PAD]", "[SEP]", "[CLS]"]
    words = specials + ["Who", "opened", "the", "café", "?", "The", "in", "by", "Ada", "##s", ","]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 3), ("[SEP]", 2)],
    )
    return tokenizer


def tokenizer_of(family, **parts):
    """The fixture's tokenizer with other parts."""
    _, tokenizer = load_model(FIXTURES / family)
    for part, value in parts.items():
        setattr(tokenizer, part, value)
    return tokenizer


SOURCES = {
    "bert": lambda: load_model(FIXTURES / "bert"),
    "roberta": lambda: load_model(FIXTURES / "roberta"),
    "spanbert": lambda: load_model(FIXTURES / "spanbert"),
    "minilm": lambda: load_model(MINILM),
    "scratch-cased": lambda: scratch(tokenizer_of("spanbert")),
    "scratch-uncased": lambda: scratch(tokenizer_of("bert")),
    "scratch-uncased-accents": lambda: scratch(
        tokenizer_of(
            "bert",
            normalizer=normalizers.BertNormalizer(
                lowercase=True, strip_accents=False, handle_chinese_chars=False
            ),
        )
    ),
    "scratch-bpe": lambda: scratch(tokenizer_of("roberta"), "roberta"),
    "scratch-bpe-prefix-space": lambda: scratch(
        tokenizer_of(
            "roberta",
            pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True),
            post_processor=processors.RobertaProcessing(("</s>", 2), ("<s>", 0)),
        ),
        "roberta",
    ),
    "scratch-toy": lambda: scratch(toy_tokenizer(), type_vocab_size=3, question_overlap=True),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(s, marks=NEEDS_MINILM if s == "minilm" else ()) for s in SOURCES],
)
def saved(request, tmp_path_factory):
    """(model, tokenizer, the folder they were saved in); the tokenizer truncated when it was."""
    model, tokenizer = SOURCES[request.param]()
    folder = tmp_path_factory.mktemp(request.param) / "checkpoint"
    truncating = Tokenizer.from_str(tokenizer.to_str())
    truncating.enable_truncation(4)
    truncating.enable_padding(length=4)
    save_model(model, truncating, folder)
    return model, tokenizer, folder


def test_saved_model_in_transformers(saved):
    """Nothing missing, unexpected or of another shape, and the same logits at non-padding positions."""
    transformers = pytest.importorskip("transformers")
    model, _, folder = saved
    theirs, info = transformers.AutoModelForQuestionAnswering.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), f"transformers says {info}"
    assert theirs.config.architectures == [type(theirs).__name__]
    names = load_file(folder / "model.safetensors").keys() ^ theirs.state_dict().keys()
    assert not names, f"transformers would name them otherwise: {names}"
    batch = random_batch(model.config, min(60, longest_input(model.config)), seed=1)
    with torch.no_grad():
        out = theirs.eval()(
            input_ids=batch["input_ids"],
            token_type_ids=batch["segment_ids"],
            attention_mask=batch["mask"].long(),
        )
    assert theirs.dtype == torch.float32, f"transformers loads it as {theirs.dtype}"
    assert_close(run(model, batch), out, batch["mask"])


def test_saved_tokenizer_in_transformers(saved):
    """AutoTokenizer gives our ids, type ids and offsets, and pads with the model's padding id."""
    transformers = pytest.importorskip("transformers")
    model, tokenizer, folder = saved
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for pair in PAIRS:
        ours = tokenizer.encode(*pair)
        out = theirs(*pair, return_offsets_mapping=True)
        tokens = theirs.convert_ids_to_tokens(out["input_ids"])
        assert out["input_ids"] == ours.ids, f"ours {ours.tokens}, theirs {tokens}"
        type_ids = out.get("token_type_ids", [0] * len(tokens))
        assert type_ids == ours.type_ids, f"type ids of {tokens}: {type_ids}"
        assert out["offset_mapping"] == ours.offsets, f"offsets of {tokens}"
    assert theirs.pad_token_id == model.config.pad_token_id
    assert (theirs.cls_token_id, theirs.sep_token_id) == (ours.ids[0], ours.ids[-1])
    assert len(theirs) <= model.config.vocab_size, "an id without an embedding"


def test_saved_and_loaded_again(saved):
    """Bit-identical weights, the same settings and the same tokenizer."""
    model, tokenizer, folder = saved
    again, tokenizer_again = load_model(folder, head_required=True)
    assert again.config == model.config
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys(), before.keys() ^ after.keys()
    different = [name for name in before if not torch.equal(before[name], after[name])]
    assert not different, f"changed by saving and loading: {different}"
    assert json.loads(tokenizer_again.to_str()) == json.loads(tokenizer.to_str())


def test_saved_files(saved):
    """The files of the format, no more; tokenizer.json neither truncates nor pads."""
    _, tokenizer, folder = saved
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    wordpiece = isinstance(tokenizer.model, models.WordPiece)
    assert {file.name for file in folder.iterdir()} == names | (
        {"vocab.txt"} if wordpiece else set()
    )
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert settings["truncation"] is None and settings["padding"] is None
    if wordpiece:
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        assert lines.pop() == "", "vocab.txt must end with a newline"
        assert lines == [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        lowercase = bool((settings["normalizer"] or {}).get("lowercase"))
        kept = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert kept["do_lower_case"] is lowercase, "casing must travel with the checkpoint"


# --- Loading: what the Hub has -------------------------------------------------------------------


def read_weights(folder):
    """The tensors of a fixture's copy, by name."""
    if (folder / "model.safetensors").exists():
        return load_file(folder / "model.safetensors")
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def write_weights(folder, weights, binary=False):
    """Replace a copy's weights, as model.safetensors or as pytorch_model.bin."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        (folder / name).unlink(missing_ok=True)
    weights = {name: tensor.contiguous().clone() for name, tensor in weights.items()}
    if binary:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")


def renamed(*pairs):
    """weights -> weights, every (old, new) replaced in their names."""

    def change(weights):
        for old, new in pairs:
            weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
        return weights

    return change


def with_extra(*names):
    """weights -> weights with tensors that a QA model has no use for."""
    return lambda weights: weights | {name: torch.ones(2, 2) for name in names}


QUIRKS = {
    "no prefix": renamed(("roberta.", ""), ("bert.", "")),
    "gamma and beta": renamed(
        ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")
    ),
    "position_ids": with_extra("bert.embeddings.position_ids", "embeddings.position_ids"),
    "pre-training heads": with_extra(
        "cls.predictions.bias",
        "cls.predictions.transform.LayerNorm.gamma",
        "cls.seq_relationship.weight",
        "lm_head.bias",
        "lm_head.layer_norm.weight",
        "lm_head.decoder.weight",
    ),
    "poolers": with_extra("bert.pooler.dense.weight", "pooler.dense.bias"),
}


@pytest.mark.parametrize("binary", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("quirk", QUIRKS)
def test_quirks_of_the_hub(quirk, family, binary, tmp_path):
    """Old names, missing prefixes and leftovers of pre-training change nothing."""
    folder = shutil.copytree(FIXTURES / family, tmp_path / family)
    changed = QUIRKS[quirk](read_weights(folder))
    write_weights(folder, renamed(("bert.", f"{family}."))(changed), binary)
    batch, _ = expected(family)
    model, _ = load_model(folder, head_required=True)
    assert_close(run(model, batch), batch, batch["mask"])


# --- Loading: what must be refused ---------------------------------------------------------------


def config(**changes):
    """folder -> its config.json with other values; None takes the key out."""

    def change(folder):
        settings = json.loads((folder / "config.json").read_text()) | changes
        settings = {key: value for key, value in settings.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(settings))

    return change


def weights(change):
    """folder -> its weights changed."""
    return lambda folder: write_weights(folder, change(read_weights(folder)))


def without(part):
    """weights -> weights without the tensors whose name contains `part`."""
    return lambda tensors: {name: x for name, x in tensors.items() if part not in name}


def cut(part):
    """weights -> weights, those whose name contains `part` one row shorter."""
    return lambda tensors: {name: x[:-1] if part in name else x for name, x in tensors.items()}


def text(name, content):
    """folder -> a file with other content."""
    return lambda folder: (folder / name).write_text(content)


def truncated(name):
    """folder -> a file cut in half, as a broken transfer leaves it."""

    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def gone(*names):
    """folder -> folder without these files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def tokenizer(**changes):
    """folder -> its tokenizer.json with other parts."""

    def change(folder):
        path = folder / "tokenizer.json"
        settings = json.loads(path.read_text(encoding="utf-8")) | changes
        path.write_text(json.dumps(settings), encoding="utf-8")

    return change


def too_many_tokens(folder):
    """One token more than the embedding has rows."""
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.add_tokens(["oneTooMany"])
    tokens.save(str(folder / "tokenizer.json"))


def list_for_weight(folder):
    """A pytorch_model.bin with something else than a tensor under a weight's name."""
    tensors = read_weights(folder) | {PREFIXED: [1.0]}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


SEGMENTS = json.loads(toy_tokenizer().to_str())["post_processor"]
QUERY = "encoder.layer.1.attention.self.query.weight"
PREFIXED = f"bert.{QUERY}"
BAD = {  # what: (fixture, how it is broken, what the message must name)
    "extra weight": ("bert", weights(with_extra("bert.encoder.adapter.weight")), "adapter.weight"),
    "extra layer": ("bert", config(num_hidden_layers=1), "layer.1."),
    "other module": ("roberta", weights(with_extra("classifier.dense.weight")), "classifier.dense"),
    "missing weight": ("bert", weights(without(QUERY)), QUERY),
    "missing embedding": ("roberta", weights(without("word_embeddings")), "word_embeddings.weight"),
    "missing layer": ("bert", config(num_hidden_layers=3), "layer.2."),
    "missing LayerNorm": ("spanbert", weights(without("embeddings.LayerNorm.gamma")), "LayerNorm"),
    "half a head": ("bert", weights(without("qa_outputs.bias")), "qa_outputs.bias"),
    "wrong shape": ("bert", weights(cut(QUERY)), QUERY),
    "wrong head": ("roberta", weights(cut("qa_outputs.weight")), "qa_outputs.weight"),
    "wrong positions": ("bert", config(max_position_embeddings=512), "position_embeddings"),
    "wrong vocabulary": ("bert", config(vocab_size=500), "word_embeddings"),
    "truncated safetensors": ("bert", truncated("model.safetensors"), "model.safetensors"),
    "empty safetensors": ("bert", text("model.safetensors", ""), "model.safetensors"),
    "truncated bin": ("spanbert", truncated("pytorch_model.bin"), "pytorch_model.bin"),
    "empty bin": ("spanbert", text("pytorch_model.bin", ""), "pytorch_model.bin"),
    "Git LFS pointer": ("spanbert", text("pytorch_model.bin", "version 1"), "pytorch_model.bin"),
    "not weights": ("spanbert", lambda f: torch.save([1], f / "pytorch_model.bin"), ".bin"),
    "no weights": ("bert", gone("model.safetensors"), "bert"),
    "a list for a weight": ("bert", list_for_weight, QUERY),
    "NaN": ("bert", weights(lambda w: w | {PREFIXED: w[PREFIXED] * np.nan}), QUERY),
    "RoBERTa as BERT": ("roberta", config(model_type="bert"), "roberta"),
    "RoBERTa as nothing": ("roberta", config(model_type=None), "roberta"),
    "tanh gelu": ("bert", config(hidden_act="gelu_new"), "gelu_new"),
    "relu": ("roberta", config(hidden_act="relu"), "relu"),
    "relative positions": ("bert", config(position_embedding_type="relative_key"), "relative_key"),
    "other model": ("bert", config(model_type="deberta-v2"), "deberta-v2"),
    "no width": ("bert", config(hidden_size=None), "config.json"),
    "width in words": ("bert", config(hidden_size="wide"), "config.json"),
    "uneven heads": ("bert", config(num_attention_heads=5), "num_attention_heads"),
    "no config": ("bert", gone("config.json"), "config.json"),
    "broken config": ("bert", text("config.json", '{"model_type": "bert",'), "config.json"),
    "config is a list": ("bert", text("config.json", "[1]"), "config.json"),
    "no tokenizer": ("bert", gone("tokenizer.json"), "bert"),
    "broken tokenizer": ("bert", text("tokenizer.json", "{}"), "tokenizer.json"),
    "no vocabulary": ("spanbert", text("vocab.txt", ""), "vocab.txt"),
    "vocabulary without [CLS]": (
        "spanbert",
        text("vocab.txt", "[PAD]\n[UNK]\n[SEP]\na\n"),
        "[CLS]",
    ),
    "too many tokens": ("bert", too_many_tokens, "tokenizer"),
    "no post-processor": ("bert", tokenizer(post_processor=None), "tokenizer"),
    "no pair form": ("roberta", tokenizer(post_processor={"type": "ByteLevel"}), "tokenizer"),
    "empty folder": ("bert", lambda f: [x.unlink() for x in f.iterdir()], "config.json"),
    "no folder": ("bert", shutil.rmtree, "bert"),
    "segment without embedding": ("roberta", tokenizer(post_processor=SEGMENTS), "tokenizer"),
}


def assert_refused(call, word):
    """InputError in one line that names what is wrong."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert word in message, f"the message does not name {word}: {message}"
    assert "\n" not in message, f"more than one line: {message}"


@pytest.mark.parametrize("what", BAD)
def test_refused(what, tmp_path):
    """A checkpoint that cannot be used is refused in a sentence, before or while making windows."""
    family, spoil, word = BAD[what]
    folder = shutil.copytree(FIXTURES / family, tmp_path / family)
    spoil(folder)

    def call():
        _, tokenizer = load_model(folder)
        make_windows([Question("1", "Who?", "Ada.", [])], tokenizer, max_length=30, stride=4)

    assert_refused(call, word)


class Evil:
    """What an attacker puts into a pickle: a call that runs while it is being read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle"])
def test_malicious_pickle(how, tmp_path):
    """A pytorch_model.bin that runs code is refused and runs nothing."""
    folder, target = tmp_path / "spanbert", tmp_path / "executed"
    path = shutil.copytree(FIXTURES / "spanbert", folder) / "pytorch_model.bin"
    content = {"embeddings.word_embeddings.weight": Evil(target)}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    assert_refused(lambda: load_model(folder), "pytorch_model.bin")
    assert not target.exists(), "the pickle's code was executed"


def test_safetensors_before_pickle(tmp_path):
    """Where both files are, the safe one is read."""
    folder = shutil.copytree(FIXTURES / "bert", tmp_path / "bert")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    load_model(folder, head_required=True)
    assert not (tmp_path / "executed").exists(), "the pickle's code was executed"


def test_head_required():
    """An encoder gets a new head only where that was not ruled out."""
    model, _ = load_model(FIXTURES / "spanbert")
    start_logits, _ = model(
        *(expected("spanbert")[0][k] for k in ("input_ids", "segment_ids", "mask"))
    )
    assert start_logits.std() > 0, "a new head must not be zero"
    assert_refused(lambda: load_model(FIXTURES / "spanbert", head_required=True), "qa_outputs")


@pytest.mark.parametrize("name", ["no/such/model", "not a name!", "", __file__])
def test_impossible_hub_id(name):
    """What is neither a folder nor a possible Hub id is refused, a file included."""
    assert_refused(lambda: load_model(name), name)


def test_hub_without_network(tmp_path):
    """A Hub id that is neither in the cache nor to be had is refused."""
    script = """
from data import InputError
from model import load_model
try:
    load_model("nobody/no-such-model")
except InputError as error:
    print("InputError", error)
"""
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=root, env=offline, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("InputError"), done.stdout + done.stderr
    assert "nobody/no-such-model" in done.stdout, done.stdout
