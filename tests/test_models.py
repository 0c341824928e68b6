"""Finding model files, and refusing those that cannot be trusted, before anything is created."""

from __future__ import annotations

import json
import shutil

import pytest

from osembed.embed.encoders import Encoders, model_of
from osembed.errors import IdentityError, InputError, ModelError
from osembed.models import registry as registry_module
from osembed.models.folder import read_model
from osembed.models.identity import identify
from osembed.models.registry import find_model, open_model, registry
from osembed.opensearch.schema import IndexMeta
from osembed.passages.chunk import ChunkRule


@pytest.fixture
def copied(models, tmp_path):
    """A copy of the small BERT model to spoil."""
    return shutil.copytree(models.bert, tmp_path / "copy")


@pytest.fixture
def fresh_registry():
    registry_module.registry.cache_clear()
    yield
    registry_module.registry.cache_clear()


def meta_for(model, **provenance):
    return IndexMeta("c", "papers", 1, identify(model), ChunkRule(), "lucene", {"model": model.spec.name, **provenance})


def test_registry_lists_the_promised_models():
    """The families that users of such tools ask for are known by name."""
    assert {"all-MiniLM-L6-v2", "all-mpnet-base-v2", "specter2_base", "bge-large-en-v1.5", "e5-small-v2"} <= set(registry())
    assert len(registry()) >= 18


def test_default_model_comes_from_its_package():
    """all-MiniLM-L6-v2 is found offline, under its short name and its hub id alike."""
    short, full = open_model("all-MiniLM-L6-v2"), open_model("sentence-transformers/all-MiniLM-L6-v2")
    assert short.spec.dimension == 384
    assert identify(short) == identify(full)


def test_user_file_is_merged_by_name(tmp_path, monkeypatch, fresh_registry):
    """A user's TOML adds models and changes single fields of known ones."""
    file = tmp_path / "mine.toml"
    file.write_text('[all-MiniLM-L6-v2]\nmax_length = 128\n\n[mine]\nhub = "me/mine"\ndimension = 8\nmax_length = 64\n')
    monkeypatch.setenv("OSEMBED_MODELS_TOML", str(file))
    assert registry()["all-MiniLM-L6-v2"].max_length == 128
    assert registry()["all-MiniLM-L6-v2"].dimension == 384
    assert registry()["mine"].hub == "me/mine"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled files can run code"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: truncate(folder / "model.safetensors", 20_000), "is damaged: it has"),
        (lambda folder: truncate(folder / "model.safetensors", 5), "header cannot be read"),
        (lambda folder: edit(folder / "config.json", auto_map={"AutoModel": "evil.Model"}), "runs no remote code"),
        (lambda folder: (folder / "modules.json").write_text('[{"type": "evil.Module"}]'), "runs no code from a model"),
        (lambda folder: (folder / "modules.json").write_text("[5]"), "are not understood"),
        (lambda folder: (folder / "config.json").write_text("[5]"), "are not understood"),
        (lambda folder: edit(folder / "config.json", model_type=["bert"]), "states no model_type"),
        (lambda folder: edit(folder / "config.json", hidden_size="wide"), "are not understood"),
    ],
)
def test_spoilt_folders_are_refused(copied, spoil, message):
    """Missing, truncated, pickled or code-carrying files are named, and nothing is loaded (F9)."""
    spoil(copied)
    with pytest.raises(ModelError, match=message):
        read_model(copied)


def truncate(file, size):
    file.write_bytes(file.read_bytes()[:size])


def edit(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize("kind", ["frobnicator", "bert_", ""])
def test_an_unknown_architecture_is_named(copied, kind):
    """A model_type that nobody knows is an error of the model, not a traceback of a library."""
    edit(copied / "config.json", model_type=kind)
    with pytest.raises(ModelError, match=f"cannot be loaded: .*model_type '{kind}'"):
        Encoders().load(read_model(copied))


def test_a_folder_of_osembed_models_is_found_by_its_name(models, tmp_path, monkeypatch):
    """Without an entry in the registry, also one folder deeper."""
    shutil.copytree(models.bert, tmp_path / "our-model")
    shutil.copytree(models.bert, tmp_path / "team" / "other")
    monkeypatch.setenv("OSEMBED_MODELS", str(tmp_path))
    assert open_model("our-model").folder == tmp_path / "our-model"
    assert open_model("team/other").folder == tmp_path / "team" / "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine = 3", "'mine' is not a table"),
        ('[mine]\ndimension = "8"\nmax_length = 64', "The model 'mine': dimension: '8' is not"),
        ("[mine]\ndimension = 8\nmax_len = 64", "does not know"),
        ("[mine]\ndimension = 8", "lacks dimension or max_length"),
        ("[mine", "is not valid TOML"),
    ],
)
def test_a_registry_that_cannot_be_used(tmp_path, monkeypatch, fresh_registry, text, message):
    """A user's TOML with other types, names or no TOML at all is refused by name; so is one that is not there."""
    file = tmp_path / "mine.toml"
    monkeypatch.setenv("OSEMBED_MODELS_TOML", str(file))
    with pytest.raises(InputError, match="OSEMBED_MODELS_TOML names"):
        registry()
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        registry()


def test_unknown_names_are_refused():
    """A misspelt name, a missing folder and a hub id that cannot be had each get their own sentence."""
    with pytest.raises(ModelError, match="not a known model"):
        open_model("all-MiniLM-L66")
    with pytest.raises(ModelError, match="no folder"):
        open_model("./nowhere")
    with pytest.raises(ModelError, match="could not be downloaded"):
        open_model("nobody/has-this-model")


def test_what_files_leave_open_is_assumed_and_said(copied):
    """Without pooling and similarity files, mean pooling and cosine are assumed, by name."""
    shutil.rmtree(copied / "1_Pooling")
    (copied / "config_sentence_transformers.json").unlink()
    assert read_model(copied).spec.assumed == ("mean pooling", "cosine similarity")


def test_a_renamed_model_is_the_same_model(models, tmp_path, monkeypatch):
    """A model is found by the hash of its weights in OSEMBED_MODELS, whatever its folder is called there."""
    original = read_model(models.bert)
    shutil.copytree(models.bert, tmp_path / "team" / "renamed")
    monkeypatch.setenv("OSEMBED_MODELS", str(tmp_path))
    found = find_model(original.weights_hash, "gone")
    assert found is not None
    assert found.folder.name == "renamed"
    assert identify(found) == identify(original)


def test_settings_come_from_the_identity_not_from_the_folder(copied, models):
    """A folder with the right weights but another pooling file still makes the collection's vectors."""
    stored = meta_for(read_model(models.bert), path=str(copied))
    edit(copied / "1_Pooling" / "config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    assert read_model(copied).spec.pooling == "cls"
    assert model_of(stored.stored_model).spec.pooling == "mean"


def test_another_tokeniser_is_another_identity(copied, models):
    """Right weights with a changed tokeniser are refused, naming the field."""
    stored = meta_for(read_model(models.bert), path=str(copied))
    edit(copied / "tokenizer.json", version="2.0")
    with pytest.raises(IdentityError, match="differs in tokenizer"):
        model_of(stored.stored_model)


def test_a_missing_model_is_said_with_the_way_out(models):
    """A machine without the model says which one it lacks."""
    stored = meta_for(read_model(models.bert))
    stored.identity.__dict__["weights"] = "0" * 64
    with pytest.raises(ModelError, match="tiny-bert, which is not on this machine"):
        Encoders().of(stored.stored_model)


def test_identities_differ_in_a_named_field(models):
    """The mirror model differs in its weights, the CLS model in more; the first difference is named."""
    one, other = identify(read_model(models.bert)), identify(read_model(models.mirror))
    assert one.hash != other.hash
    assert str(one.difference(other)).startswith("weights")
    assert one.difference(one) is None
