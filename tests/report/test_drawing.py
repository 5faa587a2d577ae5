"""What pictures of the report share."""

from cropray.report.drawing import in_colours


def test_models_beyond_the_last_colour_are_drawn_too():
    drawn = list(in_colours(range(20)))
    assert [of for of, _ in drawn] == [*range(20)]
    assert len({colour for _, colour in drawn[:8]}) == 8
