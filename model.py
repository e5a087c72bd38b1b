"""The encoder, the question answering head, and checkpoints in and out. Read after data.py.

One post-LayerNorm transformer encoder serves BERT, RoBERTa and SpanBERT checkpoints and the small
model trained from scratch. Letters: B windows in a batch, T positions, D hidden width, H heads.
"""

import json
import math
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from data import InputError, pair_layout, write_file


@dataclass(frozen=True)
class Config:
    """The shape of an encoder, under the names that config.json has for it."""

    model_type: str = "bert"  # or "roberta": one segment, positions from pad_token_id + 1
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    question_overlap: bool = False  # segment 2 on context tokens that the question holds (toy)

    @property
    def first_position(self):
        return self.pad_token_id + 1 if self.model_type == "roberta" else 0


def dropout(x, p):
    """x with a share p of its elements zeroed and the others scaled up; p = 0 changes nothing."""
    if p == 0:
        return x
    if x.is_cuda:
        return F.dropout(x, p)
    # Four 16-bit numbers from each 64-bit draw, where F.dropout spends a draw on each element.
    draws = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * 65536) - 32768
    return x * (1 / (1 - p)) * keep


def attention(query, key, value, mask, p=0.0):
    """softmax(q k^T / sqrt(D/H)) v over the keys that `mask` admits, with dropout p.

    (B, H, T, D/H) x3, (B, T) bool -> (B, H, T, D/H)
    """
    bias = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device)
    bias = bias.masked_fill(~mask, torch.finfo(query.dtype).min)[:, None, None]  # (B, 1, 1, T)
    if query.is_cuda or not torch.is_grad_enabled():  # fused; on a CPU its backward is slow
        return F.scaled_dot_product_attention(query, key, value, bias, p)
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)  # (B, H, T, T)
    return dropout((scores + bias).softmax(-1), p) @ value


class Layer(nn.Module):
    """Self-attention and a two-layer network, each added to its input and then normalised."""

    def __init__(self, config):
        super().__init__()
        D, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.hidden_dropout = config.hidden_dropout_prob
        self.query, self.key, self.value = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.mix = nn.Linear(D, D)
        self.attention_norm = nn.LayerNorm(D, eps)
        self.widen = nn.Linear(D, config.intermediate_size)
        self.narrow = nn.Linear(config.intermediate_size, D)
        self.output_norm = nn.LayerNorm(D, eps)

    def forward(self, x, mask):  # (B, T, D), (B, T) -> (B, T, D)
        B, T, D = x.shape
        heads = (f(x).view(B, T, self.heads, -1) for f in (self.query, self.key, self.value))
        heads = (part.transpose(1, 2) for part in heads)  # (B, H, T, D/H)
        mixed = attention(*heads, mask, self.attention_dropout * self.training)
        mixed = self.mix(mixed.transpose(1, 2).reshape(B, T, D))
        x = self.attention_norm(x + dropout(mixed, self.hidden_dropout * self.training))
        wide = self.narrow(F.gelu(self.widen(x)))
        return self.output_norm(x + dropout(wide, self.hidden_dropout * self.training))


class QAModel(nn.Module):
    """Encoder and head: two numbers per position, how well an answer starts and ends there."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        D = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, D)
        self.positions = nn.Embedding(config.max_position_embeddings, D)
        self.segments = nn.Embedding(config.type_vocab_size, D)
        self.embedding_norm = nn.LayerNorm(D, config.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.head = nn.Linear(D, 2)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @property
    def max_length(self):
        """The longest window, in positions, that the position embeddings can hold."""
        return self.config.max_position_embeddings - self.config.first_position

    def hidden_states(self, input_ids, segment_ids, mask):  # (B, T) x3 -> (B, T, D)
        positions = (
            torch.arange(input_ids.shape[1], device=mask.device) + self.config.first_position
        )
        x = self.words(input_ids) + self.positions(positions) + self.segments(segment_ids)
        x = dropout(self.embedding_norm(x), self.config.hidden_dropout_prob * self.training)
        if torch.is_autocast_enabled(x.device.type):  # sums and norms in half the memory
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, input_ids, segment_ids, mask):
        """(B, T) int64 x2, (B, T) bool -> start and end logits, (B, T) float32 each."""
        x = self.hidden_states(input_ids, segment_ids, mask)
        with torch.autocast(x.device.type, enabled=False):  # the head and the losses stay in fp32
            start_logits, end_logits = self.head(x.float()).unbind(-1)
        return start_logits, end_logits


# --- Checkpoints -----------------------------------------------------------------------------

RENAME = [  # our name, the name in BERT and RoBERTa checkpoints
    ("words", "embeddings.word_embeddings"),
    ("positions", "embeddings.position_embeddings"),
    ("segments", "embeddings.token_type_embeddings"),
    ("embedding_norm", "embeddings.LayerNorm"),
    (r"layers\.(\d+)\.query", r"encoder.layer.\1.attention.self.query"),
    (r"layers\.(\d+)\.key", r"encoder.layer.\1.attention.self.key"),
    (r"layers\.(\d+)\.value", r"encoder.layer.\1.attention.self.value"),
    (r"layers\.(\d+)\.mix", r"encoder.layer.\1.attention.output.dense"),
    (r"layers\.(\d+)\.attention_norm", r"encoder.layer.\1.attention.output.LayerNorm"),
    (r"layers\.(\d+)\.widen", r"encoder.layer.\1.intermediate.dense"),
    (r"layers\.(\d+)\.narrow", r"encoder.layer.\1.output.dense"),
    (r"layers\.(\d+)\.output_norm", r"encoder.layer.\1.output.LayerNorm"),
    ("head", "qa_outputs"),
]
IGNORED = re.compile(r"cls\.|lm_head\.|pooler\.|embeddings\.position_ids$")  # of pretraining


SAFE, UNSAFE = "model.safetensors", "pytorch_model.bin"
SPECIALS = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
}
SUPPORTED = {  # in config.json; a missing key has the first value
    "model_type": ("bert", "roberta"),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
}


def checkpoint_name(name):
    """Our parameter name -> the checkpoint's, without the prefix "bert." or "roberta.".

    >>> checkpoint_name("layers.3.mix.bias")
    'encoder.layer.3.attention.output.dense.bias'
    """
    module, kind = name.rsplit(".", 1)
    theirs = next(re.sub(ours, t, module) for ours, t in RENAME if re.fullmatch(ours, module))
    return f"{theirs}.{kind}"


@contextmanager
def refusing(file):
    """Turn what a library raises about a user's file, of many kinds, into one InputError."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        message = f"{file}: cannot be used ({reason}); give a BERT, RoBERTa or SpanBERT checkpoint"
        raise InputError(message) from None


def load_model(path_or_id, head_required=False):
    """Load a checkpoint directory or Hub id -> QAModel in evaluation mode, Tokenizer.

    A checkpoint without a question answering head gets a new one, unless head_required. Raises
    InputError where a file is missing or broken, a weight is missing, unexpected, misshapen or not
    finite, or where the tokenizer does not fit.
    """
    directory = Path(path_or_id)
    if not directory.is_dir():
        with refusing(path_or_id):  # a Hub id, fetched into the Hub's cache
            wanted = ["config.json", "tokenizer.json", "vocab.txt"]
            directory = Path(snapshot_download(str(path_or_id), allow_patterns=[*wanted, SAFE]))
            if not (directory / SAFE).exists():
                snapshot_download(str(path_or_id), allow_patterns=[*wanted, UNSAFE])
    model = _empty_model(directory / "config.json")
    tokenizer = _load_tokenizer(directory, model.config.vocab_size)
    file = directory / SAFE if (directory / SAFE).exists() else directory / UNSAFE
    with refusing(file):
        load = safetensors.torch.load_file if file.name == SAFE else _load_bin
        weights = {_modern(name): tensor for name, tensor in load(file).items()}
    if "qa_outputs.weight" not in weights and not head_required:
        head = torch.randn(2, model.config.hidden_size) * model.config.initializer_range
        weights |= {"qa_outputs.weight": head, "qa_outputs.bias": torch.zeros(2)}
    shapes = {checkpoint_name(name): list(p.shape) for name, p in model.named_parameters()}
    missing = sorted(set(shapes) - set(weights))
    unexpected = sorted(name for name in set(weights) - set(shapes) if not IGNORED.match(name))
    if missing or unexpected:
        what, some = ("lacks", missing) if missing else ("has unknown", unexpected)
        raise InputError(f"{file}: {what} weights {some[:3]}; is it BERT, RoBERTa or SpanBERT?")
    for name, shape in shapes.items():
        if list(weights[name].shape) != shape:
            found = list(weights[name].shape)
            raise InputError(f"{file}: {name} is {found}, not {shape}; does config.json fit it?")
        if not weights[name].isfinite().all():
            raise InputError(f"{file}: {name} holds NaN or infinity; take an older checkpoint")
    state = {name: weights[checkpoint_name(name)].float() for name in model.state_dict()}
    model.load_state_dict(state, assign=True)
    return model.requires_grad_().eval(), tokenizer


def _load_bin(file):
    return torch.load(file, map_location="cpu", weights_only=True)  # never unpickles objects


def _modern(name):
    """A weight's name without prefix, and LayerNorm's parameters by their names since 2018."""
    name = re.sub(r"^(bert|roberta)\.", "", name)
    return name.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias")


def _empty_model(file):
    """config.json -> a QAModel that has shapes but takes no memory, so that no size can hurt."""
    with refusing(file):
        found = dict(json.loads(file.read_text("utf-8")))
        for key, values in SUPPORTED.items():
            if found.get(key, values[0]) not in values:
                raise ValueError(f"{key} {found[key]!r} is not supported, only {', '.join(values)}")
        config = Config(**{f.name: found[f.name] for f in fields(Config) if f.name in found})
        for f in fields(Config):
            value, least = getattr(config, f.name), 0 if f.type is float or "pad" in f.name else 1
            most = {float: 1, int: 1000 if "layers" in f.name else 10**7}.get(f.type)
            if isinstance(value, bool) != (f.type is bool) or most and not least <= value <= most:
                raise ValueError(f"{f.name} cannot be {value!r}")
        if config.hidden_size % config.num_attention_heads:
            raise ValueError("num_attention_heads does not divide hidden_size")
        with torch.device("meta"):
            return QAModel(config)


def wordpiece_tokenizer(vocabulary, lowercase):
    """BERT's tokenizer from {token: id}: [CLS] question [SEP] context [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIALS["bert"] if token in vocabulary])
    ids = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ids)
    return tokenizer


def _load_tokenizer(directory, vocab_size):
    """tokenizer.json, or a WordPiece vocab.txt, cased if it holds a capital letter."""
    file = directory / "tokenizer.json"
    file = file if file.exists() else directory / "vocab.txt"
    with refusing(file):
        if file.name == "vocab.txt":
            tokens = file.read_text("utf-8").rstrip("\n").split("\n")
            lowercase = not any(re.match("[A-Z]", token) for token in tokens)
            tokenizer = wordpiece_tokenizer({t: i for i, t in enumerate(tokens)}, lowercase)
        else:
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.no_truncation()
            tokenizer.no_padding()
        size = max(tokenizer.get_vocab().values()) + 1
        if size > vocab_size:
            raise ValueError(f"it has {size} tokens, but config.json says {vocab_size}")
        pair_layout(tokenizer)
    return tokenizer


def save_model(model, tokenizer, directory):
    """Write a checkpoint directory that transformers loads with nothing missing or new.

    Raises InputError where it cannot be written.
    """
    kind, about = model.config.model_type, json.loads(tokenizer.to_str())
    family = {"bert": "BertForQuestionAnswering", "roberta": "RobertaForQuestionAnswering"}
    fixed = {key: values[0] for key, values in SUPPORTED.items()}
    keys = "pad_token", "unk_token", "cls_token", "sep_token", "mask_token"
    specials = zip(keys, SPECIALS[kind])
    settings = {
        # This class takes tokenizer.json as it is; BertTokenizer would rebuild it, lower-casing.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": bool((about["normalizer"] or {}).get("lowercase")),
        "model_max_length": model.max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    } | {key: token for key, token in specials if tokenizer.token_to_id(token) is not None}
    config = fixed | asdict(model.config) | {"architectures": [family[kind]]}
    files = {"config.json": config, "tokenizer_config.json": settings, "tokenizer.json": about}
    files = {name: json.dumps(content, indent=2).encode() for name, content in files.items()}
    if about["model"]["type"] == "WordPiece":
        vocabulary = about["model"]["vocab"]
        files["vocab.txt"] = "".join(
            f"{t}\n" for t in sorted(vocabulary, key=vocabulary.get)
        ).encode()
    weights = {}
    for ours, tensor in model.state_dict().items():
        theirs = checkpoint_name(ours)
        theirs = theirs if theirs.startswith("qa_outputs") else f"{kind}.{theirs}"
        weights[theirs] = tensor.detach().cpu().contiguous()
    files[SAFE] = safetensors.torch.save(weights, {"format": "pt"})
    for name, content in files.items():
        write_file(Path(directory) / name, content)
