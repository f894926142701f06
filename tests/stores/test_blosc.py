from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import thermocline
from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.stores import blosc
from thermocline.live.stores.blosc import BLOCK, OVERHEAD, Codec
from thermocline.live.stores.filters import FILTERS

PAGE = 65536
SOURCES = str(Path(thermocline.__path__[0]).parent)


@pytest.fixture
def buffers() -> Iterator[Callable[[], Buffer]]:
    made: list[Buffer] = []

    def make() -> Buffer:
        made.append(Buffer(PAGE + OVERHEAD))
        return made[-1]

    yield make
    for buffer in made:
        buffer.close()


@pytest.fixture(params=[(name, block) for name in ("lz4", "zstd") for block in (BLOCK, PAGE)], ids=str)
def codec(request: pytest.FixtureRequest) -> Iterator[Codec]:
    codec = Codec(request.param[0], PAGE, request.param[1])
    yield codec
    codec.close()


def packed(codec: Codec, which: int, content: bytes, source: Buffer, target: Buffer) -> int:
    source.view[:PAGE] = content
    return codec.pack(which, source.address, target.address, PAGE)


@pytest.mark.parametrize("which", range(len(FILTERS)))
def test_every_filter_unpacks_to_what_was_packed(codec: Codec, which: int, buffers: Callable[[], Buffer]) -> None:
    source, target, back = buffers(), buffers(), buffers()
    content = np.cumsum(np.random.default_rng(0).integers(0, 9, PAGE // 8)).tobytes()
    length = packed(codec, which, content, source, target)
    assert 0 < length < PAGE
    codec.unpack(target.address, length, back.address)
    assert back.view[:PAGE] == content


@pytest.mark.parametrize("which", range(len(FILTERS)))
def test_every_stretch_of_a_page_is_unpacked_by_itself(codec: Codec, which: int, buffers: Callable[[], Buffer]) -> None:
    """C-Blosc2 takes a stretch of a block's length for a block, wherever it begins: it is never asked for one."""
    source, target, back = buffers(), buffers(), buffers()
    content = np.cumsum(np.random.default_rng(0).integers(0, 9, PAGE // 8)).tobytes()
    length = packed(codec, which, content, source, target)
    for begin in range(0, PAGE, 4096):
        for end in range(begin + 4096, PAGE + 1, 4096):
            back.view[begin:end] = bytes(end - begin)
            codec.unpack_part(target.address, length, back.address, begin, end - begin)
            assert back.view[begin:end] == content[begin:end], (begin, end)


def test_filters_pay_where_they_should(codec: Codec, buffers: Callable[[], Buffer]) -> None:
    """What the choice rests on: a shuffle of the right width makes numbers smaller, and text larger."""
    rng = np.random.default_rng(0)
    source, target = buffers(), buffers()

    def gain(width: int, content: bytes) -> float:
        """How many times smaller a page gets with the better shuffle of a width than with none."""
        lengths = [packed(codec, which, content, source, target) or PAGE for which in range(len(FILTERS))]
        best = min(length for length, each in zip(lengths, FILTERS, strict=True) if each.width == width)
        return lengths[-1] / best

    assert gain(4, np.cumsum(rng.normal(size=PAGE // 4)).astype("f4").tobytes()) > 1.2
    assert gain(8, rng.integers(0, 10**6, PAGE // 8).tobytes()) > 1.3
    assert gain(8, (Path(os.__file__).read_bytes() * 4)[:PAGE]) < 0.6


def test_what_does_not_fit_the_limit_is_not_packed(codec: Codec, buffers: Callable[[], Buffer]) -> None:
    source, target = buffers(), buffers()
    noise = np.random.default_rng(0).bytes(PAGE)
    source.view[:PAGE] = noise
    for which in range(len(FILTERS)):
        for limit in (OVERHEAD, OVERHEAD + 1, PAGE // 2, PAGE // 16 * 15):
            target.view[:] = b"\xa5" * target.size
            assert codec.pack(which, source.address, target.address, limit) == 0
            assert target.view[limit:] == b"\xa5" * (target.size - limit)


def test_bytes_that_are_no_packed_page_are_an_error(codec: Codec, buffers: Callable[[], Buffer]) -> None:
    source, target, back = buffers(), buffers(), buffers()
    length = packed(codec, 0, np.arange(PAGE // 8).tobytes(), source, target)
    with pytest.raises(StoreError, match="does not unpack"):
        codec.unpack(target.address, length // 2, back.address)
    target.view[:length] = b"\xff" * length
    with pytest.raises(StoreError, match="does not unpack"):
        codec.unpack(target.address, length, back.address)


@pytest.mark.parametrize("setting", ["BLOSC_CLEVEL=0", "BLOSC_NTHREADS=8", "BLOSC_SHUFFLE=NOSHUFFLE"])
def test_settings_for_the_users_own_arrays_are_not_for_us(
    setting: str, monkeypatch: pytest.MonkeyPatch, buffers: Callable[[], Buffer]
) -> None:
    content = np.arange(PAGE // 8).tobytes()

    def length() -> int:
        codec = Codec("zstd", PAGE)
        try:
            return packed(codec, 0, content, buffers(), buffers())
        finally:
            codec.close()

    usual, threads = length(), len(os.listdir("/proc/self/task"))
    name, value = setting.split("=")
    monkeypatch.setenv(name, value)
    assert length() == usual
    assert os.environ[name] == value
    assert len(os.listdir("/proc/self/task")) == threads


def test_the_struct_is_laid_out_as_in_the_header_that_is_installed() -> None:
    """Names and order of the fields; that a context gives the values back proves the offsets."""
    package = find_spec("blosc2")
    assert package is not None and package.submodule_search_locations
    header = Path(package.submodule_search_locations[0], "include", "blosc2.h").read_text()
    for struct, mirror in (
        ("blosc2_cparams", blosc._PackParameters),
        ("blosc2_dparams", blosc._UnpackParameters),
    ):
        body = header[: header.index(f"}} {struct};")].rpartition("typedef struct {")[2]
        body = re.sub(r"//!<.*", "", body)
        names = [re.sub(r"\[.*\]|\*", "", field.split()[-1]) for field in body.split(";") if field.strip()]
        assert names == [field[0] for field in mirror._fields_]


def test_the_package_itself_is_not_imported() -> None:
    program = (
        "import sys\n"
        "from thermocline.live.stores.blosc import Codec\n"
        "Codec('zstd', 4096)\n"
        "assert 'blosc2' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": SOURCES})


def test_without_the_library_the_error_says_what_to_install() -> None:
    program = (
        "from thermocline.live.stores import STORES\n"
        "from thermocline.spec import Compressed\n"
        "STORES[Compressed].create(Compressed('1MiB'), 4096, 256)\n"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", program],  # -S: no site-packages
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr.splitlines()[-1].endswith("compressed memory needs blosc2: pip install blosc2")
