"""Global Trade Item Numbers, the numbers in barcodes: GTIN-8, -12 (UPC), -13 (EAN) and -14.

The last digit checks the others. Leading zeros say nothing: a GTIN-12 with a zero in front is the
same as a GTIN-13.
"""

from __future__ import annotations

LENGTHS = (8, 12, 13, 14)
PATTERN = "^([0-9]{8}|[0-9]{12,14})$"
"""What a GTIN looks like, as a regular expression."""


class WrongGtin(ValueError):
    """The text is no GTIN; the message says why, and names the right check digit."""


def read_gtin(text: str) -> str:
    """Return the number without leading zeros. Raises WrongGtin."""
    if not (text.isascii() and text.isdigit() and len(text) in LENGTHS):
        raise WrongGtin("must be a barcode of 8, 12, 13 or 14 digits")
    if text[-1] != (right := check_digit(text[:-1])):
        raise WrongGtin(
            f"ends with the check digit {text[-1]}, but {right} is right for the digits before it; "
            f"if those are, it is {text[:-1]}{right}"
        )
    return significant_digits(text)


def check_digit(digits: str) -> str:
    """Return the digit that follows `digits`: from the right they weigh 3, 1, 3, 1, ..."""
    odd, even = digits[-1::-2], digits[-2::-2]
    total = 3 * sum(map(int, odd)) + sum(map(int, even))
    return str(-total % 10)


def significant_digits(digits: str) -> str:
    """Return a number without its leading zeros."""
    return digits.lstrip("0") or "0"
