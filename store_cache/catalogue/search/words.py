"""What counts as equal in a search, and what a word is.

Text is brought to its *normal form*: Unicode NFKD, case folded, marks removed. So `CAFÉ` is `cafe`,
`ß` is `ss` and `ﬁ` is `fi`. A *word* is a longest run of letters and digits (`str.isalnum`) in the
normal form. `PROD-001` has the words `prod` and `001`, `12.5cm` has `12` and `5cm`.

Words are UTF-8 bytes, which sort by code point, take less memory than texts and are quick to make
of ASCII.
"""

from __future__ import annotations

import re
import unicodedata

_SEPARATED = bytes(
    byte if chr(byte).isascii() and chr(byte).isalnum() else 32 for byte in range(256)
)
_WORD = re.compile(r"[^\W_]+")


def normal_form(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(one for one in folded if not unicodedata.category(one).startswith("M"))


def words_of(text: str) -> list[bytes]:
    """Return the words in their order."""
    if text.isascii():  # its normal form is its lower case
        return text.encode().lower().translate(_SEPARATED).split()
    return [word.encode() for word in _WORD.findall(normal_form(text))]


def folded(text: str) -> bytes:
    """Return what two texts have in common that are equal but for their case."""
    return (text.lower() if text.isascii() else text.casefold()).encode()
