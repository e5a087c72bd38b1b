"""The encoder, the question answering head, and checkpoints in and out. Read after data.py.

One post-LayerNorm transformer encoder serves BERT, RoBERTa and SpanBERT checkpoints and the small
model trained from scratch. Letters: B windows in a batch, T positions, D hidden width, H heads.
"""

import json
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save
from tokenizers import BertWordPieceTokenizer, Tokenizer
from tokenizers.models import WordPiece
from torch import nn

from data import InputError, check_fields, write_file


@dataclass(frozen=True)
class Config:
    """The shape of an encoder, under the names that config.json has for it."""

    model_type: Literal["bert", "roberta"] = "bert"  # RoBERTa's positions start at pad_token_id + 1
    hidden_act: Literal["gelu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
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

    def __post_init__(self):  # config.json can hold anything
        shares = "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"
        check_fields(self, num_hidden_layers=(1, 1000), **dict.fromkeys(shares, (0, 1 - 1e-9)))
        if self.hidden_size % self.num_attention_heads:
            raise InputError("num_attention_heads does not divide hidden_size")
        if self.question_overlap and self.type_vocab_size < 3:
            raise InputError("question_overlap needs a type_vocab_size of 3")


def dropout(x, p):
    """x with a share p of its elements zeroed and the others scaled up; p = 0 changes nothing."""
    if p == 0 or x.device.type != "cpu":
        return F.dropout(x, p)
    # F.dropout spends a 64-bit random number on each element. Here one serves four, and integer
    # arithmetic makes the factors 0 and 1, as bits of bfloat16, in which it takes a fifth of the time.
    draws = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None)
    draws = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = min(max(1, round(p * 65536)), 65535) - 32768  # the least draw that keeps its element
    keep = draws.clamp_(kept - 1, kept).sub_(kept - 1).mul_(0x3F80).view(torch.bfloat16)
    return x * keep.to(x.dtype) * (1 / (1 - p))


def attention(query, key, value, mask, p=0.0):  # (B, H, T, D/H) x3, (B, T) bool -> (B, H, T, D/H)
    """softmax(q k^T / sqrt(D/H)) v over the keys that `mask` admits, with dropout p."""
    bias = (~mask).to(query.dtype)[:, None, None] * torch.finfo(query.dtype).min  # (B, 1, 1, T)
    # The fused kernel: on a CPU it takes half the time of the formula at 186 tokens, 0.17 of it at
    # 384, but 3 times as long for the gradient, so that it is of use in evaluation only.
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, bias, p)
    scores = query / query.shape[-1] ** 0.5 @ key.transpose(-1, -2)  # (B, H, T, T)
    return dropout((scores + bias).softmax(-1), p) @ value


class Layer(nn.Module):
    """Self-attention and a two-layer network, each added to its input and then normalised."""

    def __init__(self, config):
        super().__init__()
        D, wide, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.config = config
        parts = "query", "key", "value"  # one product for the three was not faster
        self.attend = nn.ModuleDict({part: nn.Linear(D, D) for part in parts})
        self.mix = nn.Linear(D, D)
        self.attention_norm, self.output_norm = nn.LayerNorm(D, eps), nn.LayerNorm(D, eps)
        self.widen, self.narrow = nn.Linear(D, wide), nn.Linear(wide, D)

    def forward(self, x, mask):  # (B, T, D), (B, T) -> (B, T, D)
        (B, T, D), H = x.shape, self.config.num_attention_heads
        heads = (f(x).view(B, T, H, -1).transpose(1, 2) for f in self.attend.values())
        mixed = attention(*heads, mask, self.config.attention_probs_dropout_prob * self.training)
        mixed = self.mix(mixed.transpose(1, 2).reshape(B, T, D))
        x = self.attention_norm(x + dropout(mixed, self.config.hidden_dropout_prob * self.training))
        wide = self.narrow(F.gelu(self.widen(x)))
        return self.output_norm(x + dropout(wide, self.config.hidden_dropout_prob * self.training))


class QAModel(nn.Module):
    """Encoder and head: two numbers per position, how well an answer starts and ends there."""

    def __init__(self, config):
        super().__init__()
        self.config, D = config, config.hidden_size
        self.first_position = config.pad_token_id + 1 if config.model_type == "roberta" else 0
        self.max_length = config.max_position_embeddings - self.first_position  # of a window
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

    def hidden_states(self, input_ids, segment_ids, mask):  # (B, T) x3 -> (B, T, D)
        positions = self.first_position + torch.arange(input_ids.shape[1], device=mask.device)
        x = self.words(input_ids) + self.positions(positions) + self.segments(segment_ids)
        x = dropout(self.embedding_norm(x), self.config.hidden_dropout_prob * self.training)
        if torch.is_autocast_enabled(x.device.type):  # sums and norms in bf16 too: 2-6% faster
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, input_ids, segment_ids, mask):  # (B, T) x3 -> start and end logits (B, T)
        x = self.hidden_states(input_ids, segment_ids, mask)
        with torch.autocast(x.device.type, enabled=False):  # the head and the losses stay in fp32
            return self.head(x.float()).unbind(-1)


def new_model(texts, max_length):
    """The toy run's encoder, small and random, and a WordPiece tokenizer trained on the texts.

    Matching a name across the text does not emerge from random weights in minutes. So context
    tokens that the question holds get a segment of their own (the exact-match feature of DrQA,
    Chen et al. 2017), and positions start as sines (Vaswani et al. 2017).
    """
    trained = BertWordPieceTokenizer()
    # Training numbers "##a", "##b" and so on as a hash map has them; listed, they stay in order.
    letters = sorted({*trained.normalize("".join(texts))} - {" "})
    listed = SPECIALS["bert"] + ["##" + letter for letter in letters]
    trained.train_from_iterator(texts, 8000, special_tokens=listed, show_progress=False)
    tokenizer = wordpiece(trained.get_vocab(), True)
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"intermediate_size": 256, "type_vocab_size": 3, "max_position_embeddings": max_length}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    shape |= {"initializer_range": 0.1, "question_overlap": True}
    model = QAModel(Config(vocab_size=tokenizer.get_vocab_size(), **shape))
    angles = torch.arange(max_length)[:, None] / 10000 ** (torch.arange(0, 64, 2) / 64)
    model.positions.weight.data = torch.cat([angles.sin(), angles.cos()], 1) / 2
    return model, tokenizer


# --- Checkpoints -----------------------------------------------------------------------------

RENAME = {  # parts of our weights' names: what BERT and RoBERTa checkpoints have for them
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "segments": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "layers": "encoder.layer",
    "attend": "attention.self",
    "mix": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
    "head": "qa_outputs",
}
IGNORED = "cls.", "lm_head.", "pooler.", "embeddings.position_ids"  # of no use here
SAFE, UNSAFE = "model.safetensors", "pytorch_model.bin"
SPECIALS = {  # pad, unk, cls, sep, mask
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
}


def checkpoint_name(name):
    """Ours -> the checkpoint's: "layers.3.mix.bias" -> "encoder.layer.3.attention.output.dense.bias"."""
    return ".".join(RENAME.get(part, part) for part in name.split("."))


@contextmanager
def refusing(file):
    """Turn what a library raises about a user's file, of many kinds, into one InputError."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{file}: cannot be used ({reason}); give another") from None


def load_model(path_or_id, head_required=False):
    """Checkpoint directory or Hub id -> QAModel in evaluation mode, Tokenizer; or InputError."""
    directory = Path(path_or_id)
    if not directory.is_dir():
        with refusing(f"{path_or_id} (no directory here, so a Hub id)"):
            wanted = ["config.json", "tokenizer.json", "vocab.txt", SAFE]  # into the Hub's cache
            directory = Path(snapshot_download(str(path_or_id), allow_patterns=wanted))
            if not (directory / SAFE).exists():
                snapshot_download(str(path_or_id), allow_patterns=UNSAFE)
    for file in directory.glob("*"):  # the Hub's cache links to ../../blobs
        inside = directory.resolve(), directory.resolve().parent.parent / "blobs"
        if not any(file.resolve().is_relative_to(place) for place in inside):
            raise InputError(f"{file}: is a link that leads out of its directory; copy the file")
    with refusing(directory / "config.json"):
        found = json.loads((directory / "config.json").read_text("utf-8"))
        config = Config(**{f.name: found[f.name] for f in fields(Config) if f.name in found})
    with torch.device("meta"):  # shapes without memory, so that no size in config.json can hurt
        model = QAModel(config)
    shapes = {checkpoint_name(name): tensor.shape for name, tensor in model.state_dict().items()}
    tokenizer = load_tokenizer(directory, config)
    file, weights = directory / (SAFE if (directory / SAFE).exists() else UNSAFE), {}
    with refusing(file):
        found = load_file(file) if file.name == SAFE else torch.load(file, "cpu", weights_only=True)
        for name, tensor in found.items():
            name = name.removeprefix(f"{config.model_type}.")
            name = name.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias")
            weights[name] = tensor
        if "qa_outputs.weight" not in weights and not head_required:  # an encoder gets a new head
            new_head = torch.randn(2, config.hidden_size) * config.initializer_range
            weights |= {"qa_outputs.weight": new_head, "qa_outputs.bias": torch.zeros(2)}
        for name in sorted(shapes.keys() | {n for n in weights if not n.startswith(IGNORED)}):
            shape, needed = getattr(weights.get(name), "shape", "missing"), shapes.get(name)
            if shape != needed:
                raise ValueError(f"{name} is {shape}, by config.json {needed or 'unknown'}")
            if not (weights[name].is_floating_point() and weights[name].float().isfinite().all()):
                raise ValueError(f"{name} holds NaN, infinity or no fractions")
    state = {name: weights[checkpoint_name(name)].float() for name in model.state_dict()}
    model.load_state_dict(state, assign=True)
    return model.eval(), tokenizer


def load_tokenizer(directory, config):
    """tokenizer.json, or a WordPiece vocab.txt, cased if it holds a capital letter."""
    file = directory / "tokenizer.json"
    file = file if file.exists() else directory / "vocab.txt"
    with refusing(file):
        if file.suffix == ".json":
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.no_truncation()
            tokenizer.no_padding()
        else:
            vocabulary = WordPiece.read_file(str(file))
            if missing := {"[UNK]", "[CLS]", "[SEP]"} - vocabulary.keys():
                raise ValueError(f"the vocabulary lacks {' '.join(sorted(missing))}")
            tokenizer = wordpiece(vocabulary, not any(re.match("[A-Z]", t) for t in vocabulary))
        pair = tokenizer.encode("a", "b \ua66e")  # a character that no vocabulary has
        most = max(*tokenizer.get_vocab().values(), *pair.ids), max(pair.type_ids)
        if most[0] >= config.vocab_size or most[1] >= config.type_vocab_size:
            raise ValueError(f"config.json has no place for token {most[0]}, segment {most[1]}")
    return tokenizer


def wordpiece(vocabulary, lowercase):
    """BERT's tokenizer from {token: id}: [CLS] question [SEP] context [SEP]."""
    return Tokenizer.from_str(BertWordPieceTokenizer(vocabulary, lowercase=lowercase).to_str())


def save_model(model, tokenizer, directory):
    """Write a directory that transformers loads with nothing missing or new. Raises InputError."""
    kind, directory = model.config.model_type, Path(directory)
    config = asdict(model.config) | {"architectures": [f"{kind.capitalize()}ForQuestionAnswering"]}
    about = json.loads(tokenizer.to_str()) | {"truncation": None, "padding": None}
    # This class takes tokenizer.json as it is; BertTokenizer would rebuild it, lower-casing.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.max_length}
    settings["do_lower_case"] = bool((about["normalizer"] or {}).get("lowercase"))
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    roles = zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS[kind])
    settings |= {f"{role}_token": t for role, t in roles if tokenizer.token_to_id(t) is not None}
    write_file(directory / "config.json", config)
    write_file(directory / "tokenizer_config.json", settings)
    write_file(directory / "tokenizer.json", about)
    if about["model"]["type"] == "WordPiece":
        tokens = sorted(about["model"]["vocab"], key=about["model"]["vocab"].get)
        write_file(directory / "vocab.txt", "".join(f"{token}\n" for token in tokens).encode())
    weights = {checkpoint_name(n): x.cpu().contiguous() for n, x in model.state_dict().items()}
    weights = {n if n.startswith("qa_outputs.") else f"{kind}.{n}": weights[n] for n in weights}
    write_file(directory / SAFE, save(weights, {"format": "pt"}))
