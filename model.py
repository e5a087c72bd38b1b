"""The encoder and the question answering head; below the line the toy's model and checkpoints.

One post-LayerNorm encoder serves BERT, RoBERTa, SpanBERT and the small model trained from scratch.
Read after data.py, down to the line `# ===`. Letters: B windows in a batch, T positions, D hidden
width, H heads.
"""

import json
import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import nn

from data import InputError, plain_tokenizer, refusing, write_file


@dataclass(frozen=True)
class Config:
    """The shape of an encoder, under the names that config.json has for it."""

    # "bert" or "roberta".
    model_type: str = "bert"
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
    # Of the toy: words of the question have segment 2, see make_windows.
    question_overlap: bool = False
    # The loss it was trained with, which decides how it is decoded; "": not known.
    loss: str = ""


def attention(query, key, value, mask, p=0.0):
    """softmax(q k^T / sqrt(D/H)) v over the keys in the mask, dropout p on the softmax.

    query, key, value (B, H, T, D/H), mask (B, T) bool -> (B, H, T, D/H). Vaswani et al. 2017, 3.2.1.
    """
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
        self.config, D, eps = config, config.hidden_size, config.layer_norm_eps
        self.query, self.key, self.value, self.mix = (nn.Linear(D, D) for _ in range(4))
        self.attention_norm, self.output_norm = nn.LayerNorm(D, eps), nn.LayerNorm(D, eps)
        self.widen = nn.Linear(D, config.intermediate_size)
        self.narrow = nn.Linear(config.intermediate_size, D)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x, mask):
        """x (B, T, D), mask (B, T) -> (B, T, D)."""

        def split(y):  # (B, T, D) -> (B, H, T, D/H)
            return y.unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)

        p = self.config.attention_probs_dropout_prob if self.training else 0.0
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        attended = attention(q, k, v, mask, p).transpose(1, 2).flatten(2)  # (B, T, D)
        x = self.attention_norm(x + self.dropout(self.mix(attended)))
        return self.output_norm(x + self.dropout(self.narrow(F.gelu(self.widen(x)))))


class QAModel(nn.Module):
    """Encoder and head: two numbers per position, how well an answer starts and ends there.

    Called with (B, T) input_ids, segment_ids and mask -> logits (2, B, T) float32; T may exceed
    max_length by padding.
    """

    def __init__(self, config):
        super().__init__()
        self.config, D = config, config.hidden_size
        # RoBERTa counts positions from its padding index + 1, which is 2.
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

    def hidden_states(self, input_ids, segment_ids, mask):
        """(B, T) each -> last hidden state (B, T, D)."""
        # Beyond max_length there is only padding; some checkpoints have one segment, 0.
        positions = torch.arange(mask.shape[1], device=mask.device).clamp(max=self.max_length - 1)
        segment_ids = segment_ids.clamp(max=self.config.type_vocab_size - 1)
        x = self.words(input_ids) + self.positions(self.first_position + positions)
        x = self.dropout(self.embedding_norm(x + self.segments(segment_ids)))
        # BERT: float32, or bfloat16 in products alone. here: under autocast x is bfloat16 from the
        # first layer on, faster on a CPU, whose LayerNorm keeps it (a GPU's goes back to float32).
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, input_ids, segment_ids, mask):
        """(B, T) each -> logits (2, B, T)."""
        x = self.hidden_states(input_ids, segment_ids, mask)
        # Head and losses in float32.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float()).permute(2, 0, 1)


# === Around the method: not needed to understand it ===========================================


# --- The toy's model -------------------------------------------------------------------------


def new_model(texts, max_length):
    """A small random encoder for the toy run, and a WordPiece tokenizer trained on the texts."""
    trained = BertWordPieceTokenizer()
    letters = sorted({*trained.normalize("".join(texts))} - {" "})
    # Training numbers the letters inside of words, "##a", in another order each time: listed, they
    # keep theirs. The tokenizer is then made anew from the vocabulary, where they are ordinary tokens.
    listed = SPECIALS + ["##" + letter for letter in letters]
    trained.train_from_iterator(texts, 8000, special_tokens=listed, show_progress=False)
    tokenizer = Tokenizer.from_str(BertWordPieceTokenizer(trained.get_vocab()).to_str())
    sizes = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 256}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    given = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": max_length}
    others = {"num_attention_heads": 4, "type_vocab_size": 3, "initializer_range": 0.1}
    model = QAModel(Config(**sizes, **no_dropout, **given, **others, question_overlap=True))
    # Random weights learn to match names within minutes only with DrQA's exact-match feature, here
    # segment 2, and with positions that begin as sines.
    angles = torch.arange(max_length)[:, None] / 10000 ** (torch.arange(0, 64, 2) / 64)
    model.positions.weight.data = torch.cat([angles.sin(), angles.cos()], 1) / 2
    return model, tokenizer


@contextmanager
def one_thread_if_small(model):
    """One thread for a model so narrow that two wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if model.config.hidden_size < 256 else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- Checkpoints -----------------------------------------------------------------------------
# Parts of our weights' names: what checkpoints have for them.
RENAME = {
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
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def checkpoint_name(name):
    """Our name of a weight -> its name in a checkpoint.

    >>> checkpoint_name("layers.0.mix.bias")
    'encoder.layer.0.attention.output.dense.bias'
    """
    return ".".join(RENAME.get(part, part) for part in name.split("."))


def find_checkpoint(path_or_id):
    """A directory, or that of a Hub id, downloaded -> Path; InputError unless it has FILES."""
    directory = Path(path_or_id)
    if not directory.is_dir():
        with refusing(f"{path_or_id}: no such directory, nor to be had from the Hub"):
            directory = Path(
                snapshot_download(path_or_id, allow_patterns=[*FILES, "settings.json"])
            )
    absent = [name for name in FILES if not (directory / name).exists()]
    if absent:
        raise InputError(f"{path_or_id}: no {absent}; README.md, Checkpoints, converts others")
    return directory


def load_model(path_or_id, head_required=False, head_bias=0.0):
    """Checkpoint directory or Hub id -> QAModel in evaluation mode, Tokenizer; or InputError.

    Where the checkpoint has no head, a random one is made unless head_required; its two biases are
    head_bias: at a tagging label's log-odds, -4 to -5, training need not push all logits down first.
    """
    config_file, tokenizer_file, weights_file = map(find_checkpoint(path_or_id).joinpath, FILES)
    with refusing(config_file):
        found = json.loads(config_file.read_text(encoding="utf-8"))
        kind, act = found.get("model_type") or "bert", found.get("hidden_act") or "gelu"
        if kind not in DEFAULTS or act != "gelu":
            raise ValueError(f"model_type {kind}, hidden_act {act}: not bert or roberta, gelu")
        known = {f.name: found[f.name] for f in fields(Config) if found.get(f.name) is not None}
        model = QAModel(Config(**DEFAULTS[kind] | known))
    with refusing(tokenizer_file):
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        _, special, _ = plain_tokenizer(tokenizer)
        if len(special) < 3:
            raise ValueError("no post-processor puts [CLS] and [SEP] around two texts")
        highest, tokens = max([*tokenizer.get_vocab().values(), *special]), model.config.vocab_size
        if highest >= tokens:
            raise ValueError(f"it has a token {highest}, config.json only {tokens} tokens")
    with refusing(weights_file):
        weights = {}
        for name, tensor in load_file(weights_file).items():
            name = name.removeprefix(f"{kind}.")
            name = name.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias")
            if not name.startswith(IGNORED):
                weights[name] = tensor
        if "qa_outputs.weight" not in weights and not head_required:
            weights["qa_outputs.weight"] = model.head.weight
            weights["qa_outputs.bias"] = torch.full([2], head_bias)
        our_names = {checkpoint_name(name): name for name in model.state_dict()}
        missing = sorted(our_names.keys() - weights.keys())
        unknown = sorted(weights.keys() - our_names.keys())
        if missing or unknown:
            raise ValueError(f"weights missing: {missing[:3]}, unknown: {unknown[:3]}")
        model.load_state_dict({our_names[name]: weights[name] for name in weights})
    return model.eval(), tokenizer


def save_model(model, tokenizer, directory):
    """Write a directory that transformers' AutoModelForQuestionAnswering and AutoTokenizer load."""
    directory, kind = Path(directory), model.config.model_type
    architectures = {"architectures": [f"{kind.title()}ForQuestionAnswering"]}
    write_file(directory / "config.json", asdict(model.config) | architectures)
    about = json.loads(tokenizer.to_str()) | {"truncation": None, "padding": None}
    write_file(directory / "tokenizer.json", about)
    _, (cls, *between, sep), segment = plain_tokenizer(tokenizer)
    segments = ["token_type_ids"] if segment < model.config.type_vocab_size else []
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": bool((about["normalizer"] or {}).get("lowercase")),
        "model_max_length": model.max_length,
        "model_input_names": ["input_ids", *segments, "attention_mask"],
        "pad_token": tokenizer.id_to_token(model.config.pad_token_id),
        "cls_token": tokenizer.id_to_token(cls),
        "sep_token": tokenizer.id_to_token(sep),
    }
    vocabulary, own_unknown = tokenizer.get_vocab(), about["model"].get("unk_token")
    roles = {"unk_token": [own_unknown, "[UNK]", "<unk>"], "mask_token": ["[MASK]", "<mask>"]}
    for role, texts in roles.items():
        settings[role] = next((text for text in texts if text in vocabulary), None)
    write_file(directory / "tokenizer_config.json", settings)
    weights = {}
    for name, tensor in model.state_dict().items():
        name = checkpoint_name(name)
        name = name if name.startswith("qa_outputs.") else f"{kind}.{name}"
        weights[name] = tensor.cpu().contiguous()
    write_file(directory / "model.safetensors", save(weights, {"format": "pt"}))
