"""What counts as equal in a search, and what a word is.

Text is brought to its *normal form*: Unicode NFKD, case folded, marks removed. So `CAFÉ` is `cafe`,
`ß` is `ss` and `ﬁ` is `fi`. A *word* is a longest run of letters and digits (`str.isalnum`) in the
normal form. `PROD-001` has the words `prod` and `001`, `12.5cm` has `12` and `5cm`.

Words are UTF-8 bytes, which sort by code point, take less memory than texts and are quick to make
of ASCII.
"""

from __future__ import annotations

import unicodedata

_SEPARATED = bytes(byte if bytes([byte]).isalnum() else ord(" ") for byte in range(256))
_MOST_FORMS = 20_000


class _Forms(dict[int, str]):
    """The normal form of each character, with blanks for what belongs to no word.

    Characters may be taken one by one: NFKD only reorders marks, which are removed. They are looked
    up when they are first met, which takes a hundred times as long as later.
    """

    def __missing__(self, code: int) -> str:
        if len(self) >= _MOST_FORMS:
            self.clear()
        self[code] = form = "".join(
            one if one.isalnum() else " "
            for one in unicodedata.normalize("NFKD", chr(code)).casefold()
            if not unicodedata.category(one).startswith("M")
        )
        return form


_FORMS = _Forms()


def words_of(text: str) -> list[bytes]:
    """Return the words in their order."""
    if text.isascii():  # its normal form is its lower case
        return text.encode().lower().translate(_SEPARATED).split()
    return text.translate(_FORMS).encode().split()


def folded(text: str) -> bytes:
    """Return what two texts have in common that are equal but for their case."""
    return (text.lower() if text.isascii() else text.casefold()).encode()
