"""The encoder against independent computations: transformers' own models, pooled here, and sentence-transformers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from osembed.embed.library import LibraryEncoder
from osembed.embed.load import load_encoder
from osembed.embed.native import encoder as encoders
from osembed.embed.native import layout, linear, threads
from osembed.embed.native.forward import forward
from osembed.errors import InputError
from osembed.models.folder import read_model
from osembed.models.registry import open_model, registry

TEXTS = [
    "Ants walk home.",
    "The measured " * 60,
    "glass",
    "A lake below the ice fills and drains within months, and the ice above it moves.",
] * 3


def independent(folder: Path, texts: list[str], pooling: str, normalize: bool) -> np.ndarray:
    """Embed with transformers, padded, one attention mask, pooled by hand."""
    import transformers as hf
    from tokenizers import Tokenizer

    model = hf.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(96)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]") or tokenizer.token_to_id("<pad>") or 0)
    batch = tokenizer.encode_batch(texts)
    ids = torch.tensor([row.ids for row in batch])
    mask = torch.tensor([row.attention_mask for row in batch])
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = hidden[:, 0] if pooling == "cls" else (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return (torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled).numpy()


@pytest.mark.parametrize(
    ("family", "pooling", "normalize"),
    [("bert", "mean", True), ("cls", "cls", True), ("mpnet", "cls", False), ("xlmr", "mean", True), ("distil", "mean", True)],
)
def test_vectors_equal_an_independent_computation(models, family, pooling, normalize):
    """Every family, mean and CLS pooling, cosine and dot product: the same vectors as transformers makes."""
    folder = getattr(models, family)
    model = read_model(folder)
    assert (model.spec.pooling, model.spec.normalize) == (pooling, normalize)
    vectors = load_encoder(model, device="cpu", precision="fp32").encode(TEXTS)
    np.testing.assert_allclose(vectors, independent(folder, TEXTS, pooling, normalize), atol=2e-5)
    if not normalize:
        assert abs(np.linalg.norm(vectors, axis=1) - 1).max() > 0.1


def test_pooling_really_differs(models):
    """A CLS model pooled by the mean would make other vectors, so the test above can tell them apart."""
    assert not np.allclose(independent(models.cls, TEXTS, "cls", True), independent(models.cls, TEXTS, "mean", True), atol=0.05)


def test_prompts_are_part_of_what_is_embedded(models):
    """A model with prompts embeds queries and passages with their own."""
    spec = read_model(models.xlmr).spec
    assert spec.query("ants") == "query: ants"
    assert spec.passage("Title", "text") == "passage: Title text"


@pytest.mark.parametrize(
    ("name", "pooling", "normalize", "query", "passage"),
    [
        ("specter2_base", "cls", True, "q", "T[SEP]t"),
        ("bge-base-en-v1.5", "cls", True, "Represent this sentence for searching relevant passages: q", "T t"),
        ("e5-base-v2", "mean", True, "query: q", "passage: T t"),
        ("multi-qa-mpnet-base-dot-v1", "cls", False, "q", "T t"),
        ("all-mpnet-base-v2", "mean", True, "q", "T t"),
    ],
)
def test_registry_states_what_the_authors_state(name, pooling, normalize, query, passage):
    """Pooling, normalisation, prompts and separator of the known families."""
    spec = registry()[name]
    assert (spec.pooling, spec.normalize, spec.query("q"), spec.passage("T", "t")) == (pooling, normalize, query, passage)
    assert spec.space == "innerproduct"


def test_minilm_equals_sentence_transformers():
    """The real default model: vectors equal those of sentence-transformers to single precision."""
    from sentence_transformers import SentenceTransformer

    model = open_model("all-MiniLM-L6-v2")
    ours = load_encoder(model, device="cpu", precision="fp32").encode(TEXTS)
    theirs = SentenceTransformer(str(model.folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_half_precision_stays_in_the_space():
    """bf16 vectors of the real model have cosine ≥ 0.999 to fp32, above the witness bound."""
    model = open_model("all-MiniLM-L6-v2")
    exact, half = (load_encoder(model, device="cpu", precision=precision).encode(TEXTS) for precision in ("fp32", "bf16"))
    assert np.einsum("ij,ij->i", exact, half).min() >= 0.999


@pytest.mark.parametrize("activation", [linear._NONE, *linear.ACTIVATIONS.values()])
def test_fused_layers_equal_torchs(activation, monkeypatch):
    """Product, bias and activation in one pass, and one after another where torch lacks that."""
    x, weight, bias = torch.randn(300, 64).bfloat16(), torch.randn(32, 64).bfloat16(), torch.randn(32).bfloat16()
    full = x.float(), weight.float(), bias.float(), activation
    fused, fused_full = linear.linear(x, weight, bias, activation), linear.linear(*full)
    monkeypatch.setattr(linear, "_fused", lambda: None)
    torch.testing.assert_close(fused, linear.linear(x, weight, bias, activation), atol=0.15, rtol=0.02)
    torch.testing.assert_close(fused_full, linear.linear(*full), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fused.float(), fused_full, atol=0.15, rtol=0.02)


def test_packed_and_added_layers_equal_torchs():
    """A packed weight in both kinds of layer, in bf16 and in fp32."""
    x, weight, bias, other = (torch.randn(shape).bfloat16() for shape in ((300, 64), (32, 64), (32,), (300, 32)))
    exact = torch.nn.functional.linear(x.float(), weight.float(), bias.float())
    packed = linear.pack_weights(weight)
    torch.testing.assert_close(linear.linear(x, packed, bias).float(), exact, atol=0.15, rtol=0.02)
    torch.testing.assert_close(linear.linear_add(x, packed, bias, other).float(), exact + other, atol=0.15, rtol=0.02)
    full = linear.pack_weights(weight.float())
    torch.testing.assert_close(linear.linear(x.float(), full, bias.float()), exact, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(linear.linear_add(x.float(), full, bias.float(), other.float()), exact + other, atol=1e-4, rtol=1e-5)


def test_batches_do_not_change_vectors(models):
    """Order, budget and neighbours of a text do not matter."""
    encoder = load_encoder(read_model(models.mpnet), device="cpu", precision="fp32")
    together = encoder.encode(TEXTS)
    encoder._budget = 100
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, atol=2e-5)


def exact_varlen(query, key, value, bounds, other_bounds, longest, other_longest):
    """What torch's GPU kernel over cumulative lengths computes, text by text."""
    assert bounds.dtype == torch.int32
    assert (longest, int(bounds.diff().max())) == (other_longest, longest)
    mixed = torch.empty_like(query)
    for start, stop in zip(bounds.tolist(), bounds.tolist()[1:], strict=False):
        parts = (part[start:stop].transpose(0, 1) for part in (query, key, value))
        mixed[start:stop] = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(0, 1)
    return mixed


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_every_layout_makes_the_same_vectors(models, family, pooling):
    """Rows in groups (CPU), rows over cumulative lengths and padded blocks (GPU): one result, with and without an attention bias."""
    model = read_model(getattr(models, family))
    weights = load_encoder(model, device="cpu", precision="fp32")._weights
    rows = [list(range(5, 5 + length)) for length in (3, 7, 7, 60, 64, 70, 80)]
    layouts = [layout.Groups(rows, pad=False), layout.Groups(rows, pad=True), layout.Block(rows, "cpu", 80), layout.Block(rows, "cpu", 96)]
    if family == "bert":
        layouts.append(layout.Varlen(rows, "cpu", exact_varlen))
    grouped, *others = (one.pool(forward(weights, one), pooling) for one in layouts)
    for other in others:
        torch.testing.assert_close(other, grouped, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "way"), [("mpnet", "blocks"), ("bert", "blocks"), ("bert", "varlen")])
def test_the_batches_of_a_gpu_make_the_same_vectors(models, family, way, monkeypatch):
    """The whole path of a GPU but its kernels: buckets, batches, several in flight, order."""
    encoder = load_encoder(read_model(getattr(models, family)), device="cpu", precision="fp32")
    expected, sizes = encoder.encode(TEXTS), []
    encoder._blocks, encoder._varlen, encoder._budget = way == "blocks", exact_varlen if way == "varlen" else None, 200
    run = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda laid: sizes.append(laid.longest) or run(laid))
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)
    assert len(sizes) > 2
    assert way == "varlen" or set(sizes) <= {16, 32, 64, 96}
    assert [layout.bucket_of(length, 512) for length in (1, 16, 17, 64, 65, 500, 512)] == [16, 16, 32, 64, 128, 512, 512]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_longest_text_of_any_length(models, precision):
    """A model's maximum that is no multiple of the padding's step, with MPNet's bias: the same vectors as one that has room."""
    model = read_model(models.mpnet)
    texts = [" ".join(["measured"] * count) for count in (3, 60, 85, 86)]
    short, roomy = (
        load_encoder(replace(model, spec=replace(model.spec, max_length=length)), device="cpu", precision=precision).encode(texts)
        for length in (90, 96)
    )
    np.testing.assert_allclose(short, roomy, atol=1e-5)


def test_forwards_share_the_cores(monkeypatch):
    """As many threads as torch may use, each of which uses one; everybody else keeps what they had; fewer when gentle."""
    monkeypatch.setattr(threads, "_crews", {})
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        barrier = threading.Barrier(3)
        counts = [threads.worker_threads().submit(lambda: (barrier.wait(20), torch.get_num_threads())[1]) for _ in range(3)]
        assert [count.result(20) for count in counts] == [1, 1, 1]
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
        assert threads.worker_threads(together=True).submit(torch.get_num_threads).result() == 3
        threads.be_fewer()
        assert (threads.worker_threads()._max_workers, threads.worker_threads(together=True)._max_workers) == (2, 1)
    finally:
        torch.set_num_threads(before)


def test_embedding_stops_between_batches(models):
    """A run that was interrupted does not embed its window to the end."""
    encoder = load_encoder(read_model(models.bert), device="cpu", precision="fp32")
    encoder._budget, asked = 100, []
    with pytest.raises(InterruptedError):
        encoder.embed(encoder.tokeniser.tokenise(TEXTS), lambda: asked.append(1) or len(asked) > 2)
    assert len(asked) == 3


def test_long_lists_are_tokenised_ahead(models, monkeypatch):
    """Beyond one piece, texts are tokenised in a thread of its own; values and order stay."""
    encoder = load_encoder(read_model(models.bert), device="cpu", precision="fp32")
    expected = encoder.encode(TEXTS)
    monkeypatch.setattr(encoders, "_PIECE", 5)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)


def test_other_architectures_run_through_sentence_transformers(models):
    """A model with a Dense layer is no plain encoder; sentence-transformers runs it, without any code of its own."""
    encoder = load_encoder(read_model(models.dense), device="cpu")
    assert isinstance(encoder, LibraryEncoder)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_out_of_memory_halves_the_batch_and_goes_on(models, monkeypatch):
    """A device that runs out of memory gets smaller batches; order and values stay."""
    encoder = load_encoder(read_model(models.bert), device="cpu", precision="fp32")
    expected, real, sizes = encoder.encode(TEXTS), encoders.forward, []

    def scarce(weights: object, laid: layout.Groups) -> torch.Tensor:
        sizes.append(len(laid.sizes))
        if len(laid.sizes) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(weights, laid)

    monkeypatch.setattr(encoders, "forward", scarce)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)
    assert max(sizes) > 2


def test_impossible_devices_and_precisions_are_refused(models):
    """--device cuda without a GPU, and a misspelt precision, are said before anything is loaded."""
    model = read_model(models.bert)
    with pytest.raises(InputError, match="precision 'fp8'"):
        load_encoder(model, device="cpu", precision="fp8")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no usable GPU"):
            load_encoder(model, device="cuda")
