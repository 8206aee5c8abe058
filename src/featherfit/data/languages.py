"""Texts go in; the code of each one's language comes out, without a network.

The detector is py3langid: BSD-3-Clause, maintained, 4.6 MB with its model, numpy alone, 139 languages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from featherfit.errors import MissingDependencyError

LEAST_SHARE = 0.01
"""A language found in a smaller share of the texts is taken for a mistake."""

UNDETERMINED = "und"
"""ISO 639's code for texts without a letter."""


def detect_languages(texts: Sequence[str]) -> list[str]:
    """The language of each text, as ISO 639 codes such as `en`.

    Short texts are easily taken for languages that nobody wrote. Only languages that were found in `LEAST_SHARE` of the
    texts or more count, and every text is given the likeliest of them.

    Raises:
        MissingDependencyError: py3langid is not installed.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingDependencyError('by="auto" needs py3langid: pip install "featherfit[languages]"') from None
    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    rankings = {text: detector.rank(text) for text in dict.fromkeys(texts) if any(map(str.isalpha, text))}
    found = Counter(rankings[text][0][0] for text in texts if text in rankings)
    common = {code for code, times in found.items() if times >= LEAST_SHARE * found.total()} or set(found)
    best = {text: next(code for code, _ in ranking if code in common) for text, ranking in rankings.items()}
    return [best.get(text, UNDETERMINED) for text in texts]
