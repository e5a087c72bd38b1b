"""The encoder, the question answering head, and checkpoints in and out. Read after data.py.

One post-LayerNorm transformer encoder serves BERT, RoBERTa and SpanBERT checkpoints and the small
model trained from scratch. Letters: B windows in a batch, T positions, D hidden width, H heads.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import huggingface_hub
import safetensors.torch
import torch
import torch.nn.functional as F
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


WORDPIECE_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIALS = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
FILES = "config.json", "tokenizer.json", "vocab.txt", "model.safetensors", "pytorch_model.bin"


def checkpoint_name(name):
    """Our parameter name -> the checkpoint's, without the prefix "bert." or "roberta.".

    >>> checkpoint_name("layers.3.mix.bias")
    'encoder.layer.3.attention.output.dense.bias'
    """
    module, kind = name.rsplit(".", 1)
    theirs = next(re.sub(ours, t, module) for ours, t in RENAME if re.fullmatch(ours, module))
    return f"{theirs}.{kind}"


def load_model(path_or_id, head_required=False):
    """Load a checkpoint directory or Hub id -> QAModel in evaluation mode, Tokenizer.

    A checkpoint without a question answering head gets a new one, unless head_required. Raises
    InputError where a file is missing or broken, a weight is missing, unexpected, misshapen or not
    finite, or where the tokenizer does not fit.
    """
    directory = _find(str(path_or_id))
    config = _load_config(directory / "config.json")
    tokenizer = _load_tokenizer(directory, config.vocab_size)
    file, weights = _load_weights(directory)
    with torch.device("meta"):  # shapes without memory: a lying config.json allocates nothing
        model = QAModel(config)
    names = {checkpoint_name(ours): ours for ours in model.state_dict()}
    if "qa_outputs.weight" not in weights and not head_required:
        weights["qa_outputs.weight"] = torch.randn(2, config.hidden_size) * config.initializer_range
        weights["qa_outputs.bias"] = torch.zeros(2)
    missing = sorted(set(names) - set(weights))
    unexpected = sorted(name for name in set(weights) - set(names) if not IGNORED.match(name))
    if missing or unexpected:
        what, some = ("lacks", missing) if missing else ("has unknown", unexpected)
        raise InputError(f"{file}: {what} weights {some[:3]}; is it BERT, RoBERTa or SpanBERT?")
    for theirs, ours in names.items():
        found, wanted = list(weights[theirs].shape), list(model.get_parameter(ours).shape)
        if found != wanted:
            raise InputError(f"{file}: {theirs} is {found}, not {wanted}; does config.json fit it?")
        if not weights[theirs].isfinite().all():
            raise InputError(f"{file}: {theirs} holds NaN or infinity; take an older checkpoint")
    state = {ours: weights[theirs].float() for theirs, ours in names.items()}
    model.load_state_dict(state, assign=True)
    return model.requires_grad_().eval(), tokenizer


def _find(path_or_id):
    """A directory as it is; a Hub id (like "bert-base-cased") is fetched into the Hub's cache."""
    directory = Path(path_or_id)
    for name in () if directory.is_dir() else FILES:
        if name == "pytorch_model.bin" and (directory / "model.safetensors").exists():
            continue
        try:
            directory = Path(huggingface_hub.hf_hub_download(path_or_id, name)).parent
        except huggingface_hub.errors.LocalEntryNotFoundError as error:
            _refuse(path_or_id, error)
        except huggingface_hub.errors.EntryNotFoundError:
            continue  # no Hub repository has all of FILES
        except Exception as error:  # no network, no such id: the client raises many kinds
            _refuse(path_or_id, error)
    return directory


def _refuse(path, error):
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise InputError(f"{path}: cannot be loaded ({reason}); is it a complete checkpoint?") from None


def _load_config(path):
    """config.json -> Config; what is not implemented is refused."""
    try:
        found = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _refuse(path, error)
    supported = {
        "model_type": ("bert", "roberta"),
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
    }
    for key, values in supported.items():
        if found.get(key, values[0]) not in values:
            raise InputError(f"{path}: {key} {found[key]!r} is not supported; only {values} is")
    for f in fields(Config):
        value = found.setdefault(f.name, f.default)
        good = type(value) is f.type or (f.type is float and type(value) is int)
        if f.type is int:
            least = 0 if f.name == "pad_token_id" else 1
            good = good and least <= value <= (1000 if f.name == "num_hidden_layers" else 10**7)
        if f.type is float:
            good = good and 0 <= value < 1
        if not good:
            raise InputError(f"{path}: {f.name} cannot be {value!r}; take it from the original")
    if found["hidden_size"] % found["num_attention_heads"]:
        raise InputError(f"{path}: num_attention_heads does not divide hidden_size; mend one")
    return Config(**{f.name: found[f.name] for f in fields(Config)})


def _load_weights(directory):
    """The weights' file and its tensors under modern names without prefix; nothing is unpickled."""
    file = directory / "model.safetensors"
    try:
        if file.exists():
            weights = safetensors.torch.load_file(file)
        else:
            file = directory / "pytorch_model.bin"
            weights = dict(torch.load(file, map_location="cpu", weights_only=True))
        for name in list(weights):
            modern = re.sub(r"^(bert|roberta)\.", "", name)
            modern = modern.replace("LayerNorm.gamma", "LayerNorm.weight")
            weights[modern.replace("LayerNorm.beta", "LayerNorm.bias")] = weights.pop(name)
        return file, weights
    except Exception as error:  # both loaders raise many kinds for a broken file
        _refuse(file, error)


def wordpiece_tokenizer(vocabulary, lowercase):
    """BERT's tokenizer from {token: id}: [CLS] question [SEP] context [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in WORDPIECE_SPECIALS if token in vocabulary])
    ids = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ids)
    return tokenizer


def _load_tokenizer(directory, vocab_size):
    """tokenizer.json, or a WordPiece vocab.txt, cased if it holds a capital letter."""
    file = directory / "tokenizer.json"
    try:
        if file.exists():
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.no_truncation()
            tokenizer.no_padding()
        else:
            file = directory / "vocab.txt"
            tokens = file.read_text("utf-8").rstrip("\n").split("\n")
            lowercase = not any(re.match(r"[A-Z]", token) for token in tokens)
            tokenizer = wordpiece_tokenizer({t: i for i, t in enumerate(tokens)}, lowercase)
        size = max(tokenizer.get_vocab().values()) + 1
        pair_layout(tokenizer)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises plain Exception
        _refuse(file, error)
    if size > vocab_size:
        raise InputError(
            f"{file}: has {size} tokens where config.json says {vocab_size}; take both from one "
            "checkpoint"
        )
    return tokenizer


def save_model(model, tokenizer, directory):
    """Write a checkpoint directory that transformers loads with nothing missing or new.

    Raises InputError where it cannot be written.
    """
    config, kind = asdict(model.config), model.config.model_type
    name = {"bert": "BertForQuestionAnswering", "roberta": "RobertaForQuestionAnswering"}[kind]
    config |= {"architectures": [name], "hidden_act": "gelu", "position_embedding_type": "absolute"}
    settings = json.loads(tokenizer.to_str())
    keys = "pad_token", "unk_token", "cls_token", "sep_token", "mask_token"
    special = zip(keys, WORDPIECE_SPECIALS if kind == "bert" else ROBERTA_SPECIALS)
    about = {
        # This class takes tokenizer.json as it is; BertTokenizer would rebuild it, lower-casing.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": bool((settings["normalizer"] or {}).get("lowercase")),
        "model_max_length": model.max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{key: t for key, t in special if tokenizer.token_to_id(t) is not None},
    }
    weights = {}
    for ours, tensor in model.state_dict().items():
        theirs = checkpoint_name(ours)
        theirs = theirs if theirs.startswith("qa_outputs") else f"{kind}.{theirs}"
        weights[theirs] = tensor.detach().cpu().contiguous()
    files = {
        "config.json": json.dumps(config, indent=2),
        "tokenizer_config.json": json.dumps(about, indent=2),
        "tokenizer.json": tokenizer.to_str(pretty=True),
    }
    if settings["model"]["type"] == "WordPiece":
        vocabulary = settings["model"]["vocab"]
        files["vocab.txt"] = "\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n"
    for name, text in files.items():
        write_file(Path(directory) / name, text.encode())
    content = safetensors.torch.save(weights, {"format": "pt"})
    write_file(Path(directory) / "model.safetensors", content)
