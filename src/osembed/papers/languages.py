"""Languages of papers: recognise them, and choose the analyzer.

The analyzer is part of an index's mapping. It splits text into words and stems them in the same way in papers and queries.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Set
from functools import cache
from typing import TYPE_CHECKING

from osembed.errors import InputError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

ENGLISH = "english"
# OpenSearch's own language analyzers by ISO 639-1 code:
# https://docs.opensearch.org/latest/analyzers/language-analyzers/index/
_BUILT_IN = {
    "ar": "arabic", "hy": "armenian", "eu": "basque", "bn": "bengali", "bg": "bulgarian", "ca": "catalan", "cs": "czech",
    "da": "danish", "nl": "dutch", "en": ENGLISH, "et": "estonian", "fi": "finnish", "fr": "french", "gl": "galician", "de": "german",
    "el": "greek", "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian", "lv": "latvian",
    "lt": "lithuanian", "no": "norwegian", "fa": "persian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "es": "spanish",
    "sv": "swedish", "tr": "turkish", "th": "thai",
}  # fmt: skip
# Languages with a better analyzer in a plugin: code → (language, plugin, its analyzer, the analyzer without the plugin).
_PLUGGED = {
    "zh": ("chinese", "analysis-smartcn", "smartcn", "cjk"),
    "ja": ("japanese", "analysis-kuromoji", "kuromoji", "cjk"),
    "ko": ("korean", "analysis-nori", "nori", "cjk"),
    "pl": ("polish", "analysis-stempel", "polish", "standard"),
    "uk": ("ukrainian", "analysis-ukrainian", "ukrainian", "standard"),
}
_CODES = {name: code for code, name in _BUILT_IN.items()} | {name: code for code, (name, *_) in _PLUGGED.items()}
_SAMPLE_CHARS = 2000  # of each text
_CERTAIN = 0.9  # lowest probability that counts as a vote


def language_name(text: str) -> str:
    """Return the name of a language given by name or ISO 639-1 code, ignoring case. Raises InputError with the nearest name."""
    asked = text.strip().lower()
    if asked in _CODES:
        return asked
    for code, name in ((code, name) for name, code in _CODES.items()):
        if asked == code:
            return name
    near = difflib.get_close_matches(asked, _CODES, 1, 0.6)
    known = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(sorted(_CODES))}."
    raise InputError(f"There is no analyzer for the language '{text}'.", "", known)


def analyzers_of(language: str) -> tuple[str, ...]:
    """Return the analyzers for a language, best first."""
    code = _CODES[language]
    return _PLUGGED[code][2:] if code in _PLUGGED else (language,)


def choose_analyzer(language: str, plugins: Set[str]) -> str:
    """Return the best analyzer for a language on a server with these plugins."""
    code = _CODES[language]
    if code not in _PLUGGED:
        return language
    _, plugin, best, otherwise = _PLUGGED[code]
    return best if plugin in plugins else otherwise


def needs_plugins(language: str) -> bool:
    """Return whether the choice of the analyzer depends on the server's plugins."""
    return _CODES[language] in _PLUGGED


def recognise_language(texts: Iterable[str]) -> str:
    """Return the language of more than half of the texts; English if there is none."""
    found = [_identifier().classify(text[:_SAMPLE_CHARS]) for text in texts]
    votes = Counter(code for code, share in found if share >= _CERTAIN)
    best, count = max(votes.items(), key=lambda vote: vote[1], default=("en", 0))
    return next(name for name, code in _CODES.items() if code == best) if 2 * count > len(found) else ENGLISH


@cache
def _identifier() -> LanguageIdentifier:
    """Load the model once, limited to languages with an analyzer, because it confuses Chinese with its dialects."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(set(_CODES.values()) & set(identifier.labels))
    return identifier
