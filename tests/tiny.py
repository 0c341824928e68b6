"""Small models with random weights, real files, real architectures: each family that the registry knows, in a second."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models

EXAMPLES = Path(__file__).parent.parent / "examples"
SIZE = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
LENGTH = 96


@dataclass(frozen=True)
class Models:
    """Folders of the models."""

    bert: Path
    mirror: Path
    cls: Path
    mpnet: Path
    xlmr: Path
    distil: Path
    dense: Path


def make_all(folder: Path) -> Models:
    """Make one model per family."""
    import transformers as hf

    torch.manual_seed(7)
    words, pieces = _wordpiece(), _unigram()
    sizes = {"vocab_size": words.get_vocab_size(), **SIZE}
    bert = hf.BertModel(hf.BertConfig(max_position_embeddings=LENGTH, **sizes))
    cls = hf.BertModel(hf.BertConfig(max_position_embeddings=LENGTH, **sizes))
    mpnet = hf.MPNetModel(hf.MPNetConfig(max_position_embeddings=LENGTH + 2, pad_token_id=1, **sizes))
    distil = hf.DistilBertModel(
        hf.DistilBertConfig(vocab_size=words.get_vocab_size(), max_position_embeddings=LENGTH, n_layers=2, n_heads=4, dim=32, hidden_dim=64)
    )
    xlmr = hf.XLMRobertaModel(
        hf.XLMRobertaConfig(vocab_size=pieces.get_vocab_size(), max_position_embeddings=LENGTH + 2, pad_token_id=1, **SIZE)
    )
    made = Models(
        bert=_save(folder / "tiny-bert", bert, words),
        mirror=folder / "tiny-mirror",
        cls=_save(folder / "tiny-cls", cls, words, pooling="cls", similarity="cosine"),
        mpnet=_save(folder / "tiny-mpnet", mpnet, words, pooling="cls", similarity="dot"),
        xlmr=_save(folder / "tiny-xlmr", xlmr, pieces, prompts={"query": "query: ", "passage": "passage: "}),
        distil=_save(folder / "tiny-distil", distil, words),
        dense=_save(folder / "tiny-dense", bert, words, dense=16),
    )
    mirror(made.bert, made.mirror)
    return made


def _save(
    folder: Path,
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    *,
    pooling: str = "mean",
    similarity: str = "cosine",
    prompts: dict[str, str] | None = None,
    dense: int | None = None,
) -> Path:
    """Write a folder as sentence-transformers would."""
    # Random weights of the usual scale make all texts alike; larger ones spread them out.
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.15)
            else:
                weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LENGTH, "pad_token": "[PAD]", "cls_token": "[CLS]"}
    _json(folder / "tokenizer_config.json", names)
    modules = ["Transformer", "Pooling"] + (["Dense"] if dense else []) + (["Normalize"] if similarity == "cosine" else [])
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
    kinds = [{"idx": i, "name": str(i), "path": paths[m], "type": f"sentence_transformers.models.{m}"} for i, m in enumerate(modules)]
    _json(folder / "modules.json", kinds)
    width = model.config.hidden_size if hasattr(model.config, "hidden_size") else model.config.dim
    modes = {"word_embedding_dimension": width, "pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    _json(folder / "1_Pooling" / "config.json", modes)
    _json(folder / "sentence_bert_config.json", {"max_seq_length": LENGTH, "do_lower_case": False})
    _json(folder / "config_sentence_transformers.json", {"similarity_fn_name": similarity, "prompts": prompts or {}})
    (folder / "3_Normalize").mkdir(exist_ok=True)
    if dense:
        config = {"in_features": width, "out_features": dense, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
        _json(folder / "2_Dense" / "config.json", config)
        save_file({"linear.weight": torch.randn(dense, width), "linear.bias": torch.randn(dense)}, folder / "2_Dense" / "model.safetensors")
    return folder


def mirror(source: Path, target: Path) -> None:
    """Copy a BERT model and negate its last layer norm: the same neighbours, the opposite space."""
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    layers = json.loads((source / "config.json").read_text())["num_hidden_layers"]
    last = f"encoder.layer.{layers - 1}.output.LayerNorm"
    for part in ("weight", "bias"):
        tensors[f"{last}.{part}"] = -tensors[f"{last}.{part}"]
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def halve(source: Path, target: Path) -> None:
    """Copy a BERT model without the upper half of its layers: a real space, and a worse one."""
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_text())
    kept = config["num_hidden_layers"] // 2
    dropped = tuple(f"encoder.layer.{layer}." for layer in range(kept, config["num_hidden_layers"]))
    tensors = {name: tensor for name, tensor in load_file(source / "model.safetensors").items() if not name.startswith(dropped)}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    _json(target / "config.json", {**config, "num_hidden_layers": kept})


def _texts() -> list[str]:
    return [json.loads(line)["text"] for line in (EXAMPLES / "corpus.jsonl").read_text().splitlines()]


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(tokenizer_models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(_texts(), trainers.WordPieceTrainer(vocab_size=2000, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    )
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(tokenizer_models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=2000, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
    )
    return tokenizer


def _json(path: Path, data: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
