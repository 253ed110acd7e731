"""GTINs: their lengths and check digits."""

import pytest

from store_cache.catalogue.search.gtin import WrongGtin, read_gtin


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("96385074", "96385074"),  # GTIN-8
        ("036000291452", "36000291452"),  # GTIN-12
        ("4006381333931", "4006381333931"),  # GTIN-13
        ("04006381333931", "4006381333931"),
        ("10614141000415", "10614141000415"),  # GTIN-14
        ("00000000", "0"),
    ],
)
def test_a_right_one_is_its_digits_without_leading_zeros(text: str, number: str) -> None:
    assert number == read_gtin(text)


@pytest.mark.parametrize("text", ["", "1", "123456789", "400638133393a", "40063813339 31", "٤" * 8])
def test_other_lengths_and_characters_are_refused(text: str) -> None:
    with pytest.raises(WrongGtin, match="8, 12, 13 or 14 digits"):
        read_gtin(text)


@pytest.mark.parametrize("digit", [d for d in "0123456789" if d != "1"])
def test_a_wrong_check_digit_is_refused_and_the_right_one_named(digit: str) -> None:
    told = f"ends with the check digit {digit}, but 1 is right"
    with pytest.raises(WrongGtin, match=rf"{told}.* it is 4006381333931$"):
        read_gtin(f"400638133393{digit}")


def test_every_weight_counts() -> None:
    """Each digit changes the check digit."""
    for place in range(12):
        digits = list("4006381333931")
        digits[place] = str((int(digits[place]) + 1) % 10)
        with pytest.raises(WrongGtin):
            read_gtin("".join(digits))
