"""The encoder, the question answering head, and checkpoints in and out. Read after data.py.

One post-LayerNorm encoder serves BERT, RoBERTa, SpanBERT and the small model trained from scratch.
Letters: B windows in a batch, T positions, D hidden width, H heads.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import nn

from data import refusing, write_file


@dataclass(frozen=True)
class Config:
    """The shape of an encoder, under the names that config.json has for it."""

    model_type: str = "bert"  # or "roberta"
    hidden_act: str = "gelu"
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
    question_overlap: bool = False  # toy: segment 2, see make_windows


def attention(query, key, value, mask, p=0.0):
    """softmax(q k^T / sqrt(D/H)) v over keys in the mask (B, T), dropout p -> (B, H, T, D/H)."""
    mask = mask[:, None, None]  # (B, 1, 1, T)
    # The same by a fused kernel, without (T, T) tables; on a CPU its gradient would take longer.
    if query.is_cuda or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, mask, p)
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, T, T)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return F.dropout(weights, p) @ value


class Layer(nn.Module):
    """Self-attention and a two-layer network, each added to its input and then normalised."""

    def __init__(self, config):
        super().__init__()
        D, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(D, D)
        self.key = nn.Linear(D, D)
        self.value = nn.Linear(D, D)
        self.mix = nn.Linear(D, D)
        self.attention_norm = nn.LayerNorm(D, eps)
        self.widen = nn.Linear(D, config.intermediate_size)
        self.narrow = nn.Linear(config.intermediate_size, D)
        self.output_norm = nn.LayerNorm(D, eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x, mask):  # (B, T, D), (B, T) -> (B, T, D)
        def split(y):  # (B, T, D) -> (B, H, T, D/H)
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        p = self.attention_dropout if self.training else 0.0
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        attended = attention(q, k, v, mask, p).transpose(1, 2).flatten(2)  # (B, T, D)
        x = self.attention_norm(x + self.dropout(self.mix(attended)))
        return self.output_norm(x + self.dropout(self.narrow(F.gelu(self.widen(x)))))


class QAModel(nn.Module):
    """Encoder and head: two numbers per position, how well an answer starts and ends there."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        D = config.hidden_size
        self.first_position = config.pad_token_id + 1 if config.model_type == "roberta" else 0
        self.max_length = config.max_position_embeddings - self.first_position
        self.words = nn.Embedding(config.vocab_size, D)
        self.positions = nn.Embedding(config.max_position_embeddings, D)
        self.segments = nn.Embedding(config.type_vocab_size, D)
        self.embedding_norm = nn.LayerNorm(D, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.head = nn.Linear(D, 2)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def hidden_states(self, input_ids, segment_ids, mask):  # (B, T) x3 -> (B, T, D)
        positions = self.first_position + torch.arange(mask.shape[1], device=mask.device)
        x = self.words(input_ids) + self.positions(positions) + self.segments(segment_ids)
        x = self.dropout(self.embedding_norm(x))
        if torch.is_autocast_enabled(x.device.type):  # faster on a CPU
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, input_ids, segment_ids, mask):  # (B, T) x3 -> (2, B, T)
        x = self.hidden_states(input_ids, segment_ids, mask)
        with torch.autocast(x.device.type, enabled=False):  # head and losses in float32
            return self.head(x.float()).permute(2, 0, 1)


def new_model(texts, max_length):
    """A small random encoder for the toy run, and a WordPiece tokenizer trained on the texts."""
    trained = BertWordPieceTokenizer()
    letters = sorted({*trained.normalize("".join(texts))} - {" "})
    # Listed: training alone would number the letters in another order each time.
    listed = SPECIALS["bert"].split() + ["##" + letter for letter in letters]
    trained.train_from_iterator(texts, 8000, special_tokens=listed, show_progress=False)
    trained = BertWordPieceTokenizer(trained.get_vocab())
    tokenizer = Tokenizer.from_str(trained.to_str())
    # Names are matched within minutes by DrQA's exact-match feature (segment 2) and sine positions.
    size = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    size |= {"intermediate_size": 256, "max_position_embeddings": max_length, "type_vocab_size": 3}
    size |= {"vocab_size": tokenizer.get_vocab_size(), "question_overlap": True}
    size |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = QAModel(Config(**size, initializer_range=0.1))
    angles = torch.arange(max_length)[:, None] / 10000 ** (torch.arange(0, 64, 2) / 64)
    model.positions.weight.data = torch.cat([angles.sin(), angles.cos()], 1) / 2
    return model, tokenizer


# --- Checkpoints -----------------------------------------------------------------------------
RENAME = {  # parts of our weights' names: what checkpoints have for them
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "segments": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "layers": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
    "head": "qa_outputs",
}
IGNORED = "cls.", "lm_head.", "pooler.", "embeddings.position_ids"
FILES = "config.json", "tokenizer.json", "model.safetensors"
DEFAULTS = {"bert": {}, "roberta": {"vocab_size": 50265, "pad_token_id": 1}}
ROLES = "pad_token", "unk_token", "cls_token", "sep_token", "mask_token"
SPECIALS = {"bert": "[PAD] [UNK] [CLS] [SEP] [MASK]", "roberta": "<pad> <unk> <s> </s> <mask>"}


def checkpoint_name(name):
    """Our name of a weight -> its name: "words.weight" -> "embeddings.word_embeddings.weight"."""
    return ".".join(RENAME.get(part, part) for part in name.split("."))


def load_model(path_or_id, head_required=False, head_bias=0.0):
    """Checkpoint or Hub id -> QAModel, Tokenizer; a new head's biases are head_bias; InputError."""
    directory = Path(path_or_id)
    if not directory.is_dir():
        with refusing(f"{path_or_id}: no such directory, and not to be had from the Hub"):
            directory = Path(snapshot_download(str(path_or_id), allow_patterns=FILES))
    with refusing(path_or_id):
        absent = [name for name in FILES if not (directory / name).exists()]
        if absent:
            raise ValueError(f"no {absent}; Checkpoints in README.md converts other layouts")
        found = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        kind = found.get("model_type", "bert")
        if kind not in DEFAULTS:
            raise ValueError(f"model_type is {kind}, not one of {', '.join(DEFAULTS)}")
        known = {f.name: found[f.name] for f in fields(Config) if found.get(f.name) is not None}
        config = Config(**DEFAULTS[kind] | known)
        if config.hidden_act != "gelu":
            raise ValueError("hidden_act must be gelu")
        model = QAModel(config)
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        if tokenizer.get_vocab_size() > config.vocab_size:
            raise ValueError("tokenizer.json has more tokens than config.json")
        weights = {}
        for name, tensor in load_file(directory / "model.safetensors").items():
            name = name.removeprefix(f"{kind}.")
            name = name.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias")
            if not name.startswith(IGNORED):
                weights[name] = tensor
        if "qa_outputs.weight" not in weights and not head_required:
            weights["qa_outputs.weight"] = model.head.weight
            weights["qa_outputs.bias"] = torch.full([2], head_bias)
        our_names = {checkpoint_name(name): name for name in model.state_dict()}
        odd = sorted(our_names.keys() ^ weights.keys())
        if odd:
            raise ValueError(f"weights missing or not of this architecture: {odd[:3]}")
        model.load_state_dict({our_names[name]: weights[name] for name in weights})
    return model.eval(), tokenizer


def save_model(model, tokenizer, directory):
    """Write a directory that transformers' AutoModelForQuestionAnswering loads."""
    directory, kind = Path(directory), model.config.model_type
    name = {"bert": "Bert", "roberta": "Roberta"}[kind] + "ForQuestionAnswering"
    write_file(directory / "config.json", asdict(model.config) | {"architectures": [name]})
    about = json.loads(tokenizer.to_str()) | {"truncation": None, "padding": None}
    write_file(directory / "tokenizer.json", about)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": bool((about["normalizer"] or {}).get("lowercase")),
        "model_max_length": model.max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    for role, token in zip(ROLES, SPECIALS[kind].split()):
        if tokenizer.token_to_id(token) is not None:
            settings[role] = token
    write_file(directory / "tokenizer_config.json", settings)
    weights = {}
    for name, tensor in model.state_dict().items():
        name = checkpoint_name(name)
        name = name if name.startswith("qa_outputs.") else f"{kind}.{name}"
        weights[name] = tensor.cpu().contiguous()
    write_file(directory / "model.safetensors", save(weights, {"format": "pt"}))
