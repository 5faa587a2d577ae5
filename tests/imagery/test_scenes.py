import datetime as dt

import pytest

from cropray.core.cube import Season


def test_twelve_months_follow_each_other_over_the_year_end():
    months = Season("2017-12").steps
    assert len(months) == 12
    assert months[0] == (dt.date(2017, 12, 1), dt.date(2018, 1, 1))
    assert months[-1] == (dt.date(2018, 11, 1), dt.date(2018, 12, 1))
    assert [end for _, end in months[:-1]] == [start for start, _ in months[1:]]


@pytest.mark.parametrize("first_month", ["2023", "2023-13", "January", "2023-1"])
def test_refuses_what_is_no_month(first_month):
    with pytest.raises(ValueError, match="YYYY-MM"):
        Season(first_month)
