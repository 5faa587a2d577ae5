import pytest

from cropray.core.hcat import is_hcat, levels_of, prefix_of, prefixes_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3301010101", True), ("3300000000", True), ("330101010", False), ("33010101010", False), ("4301010101", False),
     ("330101010x", False), ("", False), ("3301010101\n", False)],
)  # fmt: skip
def test_ten_digits_that_begin_with_33(text, expected):
    assert is_hcat(text) == expected


@pytest.mark.parametrize(
    ("code", "prefix"),
    [("3301010101", "3301010101"), ("3301010000", "330101"), ("3301100000", "330110"), ("3301010010", "3301010010"),
     ("3300000000", "33")],
)  # fmt: skip
def test_zeros_are_left_out_by_twos(code, prefix):
    assert prefix_of(code) == prefix
    assert prefix in prefixes_of(code)


def test_the_longest_beginning_comes_first():
    assert list(prefixes_of("3301020304")) == ["3301020304", "33010203", "330102", "3301", "33"]


@pytest.mark.parametrize(
    ("codes", "levels"),
    [
        (["3301020304"], ["3301000000", "3301020000", "3301020300"]),
        (["3302000000"], ["3302000000"] * 3),
        (["3301020301", "3301020399"], ["3301000000", "3301020000", "3301020300"]),
        (
            ["3301020301", "3301021301"],
            ["3301000000", "3301020000", "3301020000"],
        ),  # 02 03 and 02 13 share no third pair
        (["3301020301", "3301000000"], ["3301000000"] * 3),
        (["3301020301", "3306000000"], ["3300000000"] * 3),
    ],
)
def test_levels_are_what_the_codes_of_a_class_share(codes, levels):
    assert list(levels_of(codes)) == levels
