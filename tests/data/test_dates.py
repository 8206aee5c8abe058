import datetime

import numpy as np
import pandas as pd
import pytest

from featherfit.data.dates import FORMATS, date_format, seconds_since_1970


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024-02-29"], "ISO8601"),
        (["2024-02-29T13:00:01Z", "2023-01-01T00:00:00+02:00"], "ISO8601"),
        (["2024/02/29"], "ISO8601"),
        (["May 30, 2011", "December 4, 2012"], "%B %d, %Y"),
        (["Dec 4, 2012"], "%b %d, %Y"),
        (["4 December 2012"], "%d %B %Y"),
        (["20-May-12"], "%d-%b-%y"),
        (["31.12.2020"], "%d.%m.%Y"),
        (["12/31/2020", "01/02/2020"], "%m/%d/%Y"),
        (["31/12/2020", "01/02/2020"], "%d/%m/%Y"),
        (["01/02/2020"], None),
        (["2024-02-30"], None),
        (["2024-01-01", "soon"], None),
        (["1.5", "2.5"], None),
        (["2024", "1999"], None),
        (["10-12", "11-13"], None),
        (["Windows 10"], None),
        (["user_000001"], None),
    ],
)
def test_formats(values, expected):
    assert date_format(values) == expected
    assert expected is None or expected in FORMATS


def test_seconds_are_those_of_python():
    when = [datetime.datetime(1969, 7, 20, 20, 17, tzinfo=datetime.timezone.utc), None,
            datetime.datetime(2200, 1, 1, tzinfo=datetime.timezone.utc)]  # fmt: skip
    expected = [value.timestamp() if value else np.nan for value in when]
    for column in (pd.Series(when), pd.Series(when, dtype=object)):
        np.testing.assert_array_equal(seconds_since_1970(column, None), expected)
    written = pd.Series(["20.07.1969 20:17", None, "01.01.2200 00:00"])
    np.testing.assert_array_equal(seconds_since_1970(written, "%d.%m.%Y %H:%M"), expected)


def test_plain_dates_and_other_zones():
    dates = pd.Series([datetime.date(1970, 1, 2), datetime.date(1970, 1, 1)], dtype=object)
    assert seconds_since_1970(dates, None).tolist() == [86_400.0, 0.0]
    zoned = pd.Series(pd.to_datetime(["1970-01-01T02:00:00"])).dt.tz_localize("Europe/Paris")
    assert seconds_since_1970(zoned, None).tolist() == [3600.0]
