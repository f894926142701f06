import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermocline.errors import SpecError
from thermocline.sizes import format_seconds, format_size, parse_seconds, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("17B", 17),
        ("64KiB", 64 * 1024),
        ("64 kib", 64 * 1024),
        ("64K", 64 * 1024),
        ("64Ki", 64 * 1024),
        ("64kB", 64_000),
        ("512MB", 512_000_000),
        ("512M", 512 * 1024**2),
        (" 2GiB ", 2 * 1024**3),
        ("2gb", 2 * 10**9),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("1_000", 1000),
        ("3TiB", 3 * 1024**4),
        ("3TB", 3 * 10**12),
        ("1PiB", 1024**5),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_whole_numbers_of_any_kind_are_bytes() -> None:
    assert parse_size(4096) == 4096
    assert parse_size(np.int64(4096)) == 4096


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ("2GBi", "write 2GiB"),
        ("2MIiB", "write 2MiB"),
        ("2 parsecs", "KiB, MiB, GiB, TiB"),
        ("-1GiB", "negative"),
        ("1.1KiB", "write 1126 for"),
        ("0.5B", "not a whole number of bytes"),
        ("", "is not a size"),
        ("GiB", "is not a size"),
        ("1e9", "is not a size"),
        ("1,5GiB", "is not a size"),
        (-1, "write a whole number"),
        (1.5, "write a whole number"),
        (True, "write a whole number"),
        (None, "write a whole number"),
    ],
)
def test_what_is_no_size_is_refused_with_the_way_to_write_it(size: object, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_size(size)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (65536, "64 KiB"),
        (1536 * 1024**2, "1.5 GiB"),
        (1024**2 - 1, "1 MiB"),  # never "1024 KiB"
        (5 * 1024**5, "5 PiB"),
        (5000 * 1024**5, "5000 PiB"),
    ],
)
def test_sizes_are_shown_in_the_largest_unit_that_leaves_one_or_more(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**60))
def test_a_shown_size_reads_back_within_a_twentieth_of_its_unit(size: int) -> None:
    number, unit = format_size(size).split()
    assert abs(float(number) * parse_size(f"1{unit}") - size) <= parse_size(f"1{unit}") * 0.0501


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ns"),
        (8e-9, "8 ns"),
        (35e-6, "35 us"),
        (0.00125, "1.25 ms"),
        (0.0009996, "1 ms"),
        (12.5, "12.5 s"),
        (90, "90 s"),
        (7200, "7200 s"),
    ],
)
def test_times_are_shown_with_three_digits_and_a_unit(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("time", "seconds"), [("2ms", 0.002), (" 1.5 s ", 1.5), ("10us", 1e-5), ("7ns", 7e-9), (3, 3.0), (0.25, 0.25)]
)
def test_times(time: str | float, seconds: float) -> None:
    assert parse_seconds(time) == pytest.approx(seconds)


@pytest.mark.parametrize("time", ["", "2", "ms", "2 hours", "-2ms", "1e3s", -1, float("inf"), float("nan"), True])
def test_what_is_no_time(time: str | float) -> None:
    with pytest.raises(SpecError):
        parse_seconds(time)
