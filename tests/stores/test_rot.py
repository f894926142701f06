"""What comes back changed from a store is an error, and never a page; and no page but that one is concerned."""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from shelf import Shelf, page

from thermocline.errors import StoreError
from thermocline.live.buffer import Buffer
from thermocline.live.stores import digest, seals
from thermocline.live.stores.pool import RECORD
from thermocline.spec import Compressed

PAGE = 4096
FILES = ("file", "plain file")
MARK = b"the very words of the page "


class Raw:
    """The bytes under a store: those of the file or of the pool's memfd, behind the store's back."""

    def __init__(self, shelf: Shelf) -> None:
        self.fd = shelf.descriptors[0]
        self.size = os.fstat(self.fd).st_size
        self._buffer = Buffer(self.size)  # direct I/O wants it aligned

    def load(self) -> bytearray:
        with closing(Buffer(self.size)) as buffer:
            os.preadv(self.fd, [buffer.view], 0)
            return bytearray(buffer.view)

    def store(self, content: bytes | bytearray) -> None:
        self._buffer.view[:] = content
        os.pwritev(self.fd, [self._buffer.view], 0)

    def store_page(self, number: int, content: bytes | bytearray) -> None:
        """Write one base page of `content` only."""
        at = number * PAGE
        self._buffer.view[:PAGE] = content[at : at + PAGE]
        os.pwritev(self.fd, [self._buffer.view[:PAGE]], at)


def is_rotten(shelf: Shelf, slot: int) -> bool:
    """Whether a slot cannot be read because its bytes have changed."""
    with pytest.raises(StoreError) as caught:
        shelf.get(slot)
    return caught.value.errno == errno.EBADMSG


@pytest.fixture(params=FILES)
def shelf(request: pytest.FixtureRequest, shelves: Callable[..., Shelf]) -> Shelf:
    """A file with pages of both kinds of seal."""
    return shelves(request.param, PAGE)


@pytest.fixture(params=("lz4", "zstd"))
def pool(request: pytest.FixtureRequest, shelves: Callable[..., Shelf]) -> Shelf:
    """Compressed memory, full of pages in one piece and in several."""
    shelf = shelves(request.param, PAGE, room=12)
    shelf.fill(0)
    for slot in list(shelf.charged)[::3]:
        shelf.drop(slot)
    shelf.fill(1000)
    return shelf


# -- a file -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_in_a_page_is_found(shelf: Shelf) -> None:
    kept = {shelf.put(page(seed, PAGE)): page(seed, PAGE) for seed in range(3)}
    raw = Raw(shelf)
    whole = raw.load()
    for position in range(0, PAGE, 5):
        damaged = bytearray(whole)
        damaged[PAGE + position] ^= 1 << position % 8
        raw.store_page(1, damaged)
        assert is_rotten(shelf, 2), position
        if not position % 8:
            assert [shelf.get(slot) for slot in (1, 3)] == [kept[1], kept[3]]
    raw.store(whole)
    assert {slot: shelf.get(slot) for slot in kept} == kept


def test_swapped_slots_are_found(shelf: Shelf) -> None:
    for seed in range(3):
        shelf.put(page(seed, PAGE))
    raw = Raw(shelf)
    whole = raw.load()
    raw.store(whole[PAGE : 2 * PAGE] + whole[:PAGE] + whole[2 * PAGE :])
    assert is_rotten(shelf, 1) and is_rotten(shelf, 2)
    assert shelf.get(3) == page(2, PAGE)


def test_the_same_page_in_two_slots_is_swapped_unnoticed_only_where_it_does_not_matter(shelf: Shelf) -> None:
    """Of two plain slots with the same bytes, either is right. Encrypted, they are not the same bytes."""
    for _ in range(2):
        shelf.put(page(0, PAGE))
    raw = Raw(shelf)
    whole = raw.load()
    raw.store(whole[PAGE:] + whole[:PAGE])
    if shelf.spec.encrypt:
        assert is_rotten(shelf, 1) and is_rotten(shelf, 2)
    else:
        assert shelf.get(1) == shelf.get(2) == page(0, PAGE)


@pytest.mark.parametrize("how", ["written again", "released and written by another", "written by a successor"])
def test_a_write_that_never_reached_the_disk_is_found(how: str, shelf: Shelf) -> None:
    shelf.put(page(1, PAGE))
    slot = shelf.put(page(2, PAGE))
    raw = Raw(shelf)
    before = raw.load()
    if how == "released and written by another":
        shelf.drop(slot)
        assert shelf.reserve() == slot
    elif how == "written by a successor":
        shelf.succeed([1])
        assert shelf.reserve() == slot
    shelf.write(slot, page(3, PAGE))
    assert shelf.get(slot) == page(3, PAGE)
    raw.store(before)
    assert is_rotten(shelf, slot)
    assert shelf.get(1) == page(1, PAGE)


def test_blocks_that_were_lost_are_found(shelf: Shelf) -> None:
    kept = [shelf.put(page(seed, PAGE)) for seed in range(3)]
    Raw(shelf).store_page(1, bytes(3 * PAGE))
    assert is_rotten(shelf, kept[1])
    os.ftruncate(shelf.descriptors[0], 2 * PAGE + 512)
    with pytest.raises(StoreError):
        shelf.get(kept[2])
    shelf.succeed(kept)
    assert shelf.get(kept[0]) == page(0, PAGE)
    assert is_rotten(shelf, kept[1])
    shelf.write(kept[2], page(9, PAGE))
    assert shelf.get(kept[2]) == page(9, PAGE)


def test_a_slot_that_was_never_written_is_no_page(shelf: Shelf) -> None:
    shelf.put(page(0, PAGE))
    slot = shelf.reserve()
    Raw(shelf)
    os.ftruncate(shelf.descriptors[0], 2 * PAGE)
    assert is_rotten(shelf, slot)


def test_only_the_plain_file_has_what_was_written(shelf: Shelf) -> None:
    for seed in range(4):
        shelf.put((MARK * PAGE)[seed : seed + PAGE])
    found = MARK in Raw(shelf).load()
    assert found == (not shelf.spec.encrypt)


def test_the_key_is_not_in_the_file_and_differs_from_memory_to_memory(tmp_path: Path, shelves: Any) -> None:
    keys = set()
    for _ in range(3):
        shelf = shelves("file", PAGE)
        key = os.pread(shelf.descriptors[1], 32, 0)
        shelf.put(page(0, PAGE))
        assert key not in Raw(shelf).load()
        keys.add(key)
    assert len(keys) == 3 and bytes(32) not in keys


def test_the_memory_of_the_seals_is_the_owners_alone(shelf: Shelf) -> None:
    status = os.fstat(shelf.descriptors[1])
    assert (status.st_mode & 0o777, status.st_nlink) == (0o600, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(shelf.descriptors[1], 0)


def test_a_record_that_has_rotted_to_any_number_costs_its_page_and_stops_nobody(shelf: Shelf) -> None:
    """The slot's page may be lost; what is written to it next is kept."""
    for seed in range(2):
        shelf.put(page(seed, PAGE))
    for count in (0, 1 << 47, (1 << 48) - 1, 1 << 48, 1 << 63, (1 << 64) - 1):
        os.pwrite(shelf.descriptors[1], count.to_bytes(8, "little"), 4096 + 2 * RECORD)
        try:
            assert shelf.get(2) == page(1, PAGE)
        except StoreError as error:
            assert error.errno == errno.EBADMSG
        shelf.succeed([1, 2])
        shelf.write(2, page(1, PAGE))
        assert shelf.get(2) == page(1, PAGE)
        assert shelf.get(1) == page(0, PAGE)


# -- nonces -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nonces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Every nonce that a page is encrypted with; they are counted across forks, through a pipe."""
    reader, writer = os.pipe()
    make, inside = seals._nonce, list[bytes]()

    def noted(slot: int, count: int) -> bytes:
        nonce = make(slot, count)
        os.write(writer, nonce)
        return nonce

    monkeypatch.setattr(seals, "_nonce", noted)
    os.set_blocking(reader, False)

    class Heard(list[bytes]):
        def hear(self) -> list[bytes]:
            while True:
                try:
                    inside.append(os.read(reader, 12))
                except BlockingIOError:
                    return inside

    yield Heard()
    os.close(reader)
    os.close(writer)


def test_a_nonce_is_used_once_whoever_writes_and_whatever_ends_him(nonces: Any, shelves: Any) -> None:
    shelf = shelves("file", PAGE)
    slots = [shelf.put(page(seed, PAGE)) for seed in range(4)]
    for seed in range(20):
        shelf.write(slots[seed % 4], page(seed, PAGE))
    shelf.drop(slots[0])
    assert shelf.put(page(30, PAGE)) == slots[0]
    for _ in range(3):
        shelf.succeed(slots[1:])
        assert shelf.put(page(31, PAGE)) == slots[0]
    for _ in range(3):  # killed when it has encrypted and not written
        child = os.fork()
        if not child:
            shelf.store._seals.write(slots[0], shelf.buffer.view[:PAGE], lambda _: os.kill(os.getpid(), signal.SIGKILL))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        shelf.succeed(slots[1:])
        assert shelf.put(page(32, PAGE)) == slots[0]
    used = nonces.hear()
    assert len(used) == 4 + 20 + 1 + 3 + 3 + 3
    assert len(set(used)) == len(used)
    assert {len(nonce) for nonce in used} == {12}


def test_writers_of_different_slots_need_no_lock(nonces: Any, shelves: Any) -> None:
    shelf = shelves("file", PAGE)
    slots = [shelf.reserve() for _ in range(8)]

    def work(mine: list[int]) -> None:
        with closing(Buffer(PAGE)) as buffer:
            for seed in range(40):
                for slot in mine:
                    buffer.view[:] = page(seed + slot, PAGE)
                    shelf.store.write(slot, buffer, 0)

    with ThreadPoolExecutor(2) as workers:
        for result in [workers.submit(work, slots[n::2]) for n in range(2)]:
            result.result()
    used = nonces.hear()
    assert len(used) == len(set(used)) == 8 * 40
    assert [shelf.get(slot) for slot in slots] == [page(39 + slot, PAGE) for slot in slots]


@pytest.mark.parametrize("in_place", [True, False])
def test_with_an_older_library_it_is_the_same(in_place: bool, shelves: Any) -> None:
    """Older releases encrypt to an object of their own only. Either reads what the other wrote."""
    shelf = shelves("file", PAGE)
    slot = shelf.put(page(1, PAGE))
    if in_place and not shelf.store._seals._in_place:
        pytest.skip("the library is an older one")
    shelf.store._seals._in_place = not in_place
    assert shelf.get(slot) == page(1, PAGE)
    shelf.write(slot, page(2, PAGE))
    shelf.store._seals._in_place = in_place
    assert shelf.get(slot) == page(2, PAGE)
    Raw(shelf).store(bytes(PAGE))
    shelf.store._seals._in_place = not in_place
    assert is_rotten(shelf, slot)


# -- compressed memory ------------------------------------------------------------------------------------------------


def entries(shelf: Shelf) -> int:
    """Where the table begins."""
    return -(-shelf.spec.capacity // PAGE) * PAGE


def contents(shelf: Shelf) -> dict[int, bytes]:
    return {slot: shelf.get(slot) for slot in shelf.charged}


def test_a_flipped_bit_anywhere_in_the_pool_is_found_or_changes_nothing(pool: Shelf) -> None:
    """Data, headers of pieces, free space: no page reads wrong, and one bit never costs two."""
    kept = contents(pool)
    raw = Raw(pool)
    whole = raw.load()
    lost = 0
    for position in range(0, entries(pool), 7):
        flipped = bytes([whole[position] ^ 1 << position // 7 % 8])
        os.pwrite(raw.fd, flipped, position)
        found = []
        for slot, content in kept.items():
            try:
                assert pool.get(slot) == content
            except StoreError as error:
                assert error.errno == errno.EBADMSG
                found.append(slot)
        assert len(found) <= 1
        lost += len(found)
        os.pwrite(raw.fd, whole[position : position + 1], position)
    assert lost > entries(pool) // 7 // 2
    assert contents(pool) == kept


def test_every_bit_of_the_table_counts(pool: Shelf) -> None:
    kept = contents(pool)
    raw = Raw(pool)
    for slot in kept:
        at = entries(pool) + RECORD * slot
        record = os.pread(raw.fd, RECORD, at)
        side = record[2] >> 7
        for bit in [*range(64), *range(64 * (1 + side), 64 * (2 + side))]:
            damaged = bytearray(record)
            damaged[bit // 8] ^= 1 << bit % 8
            os.pwrite(raw.fd, damaged, at)
            assert is_rotten(pool, slot), bit
            if not bit % 16:
                assert all(pool.get(other) == content for other, content in kept.items() if other != slot)
        os.pwrite(raw.fd, record, at)
    assert contents(pool) == kept


@pytest.mark.parametrize("part", ["the table", "headers"])
@pytest.mark.parametrize("then", ["released", "recovered"])
def test_the_room_of_a_rotten_page_is_given_to_nobody_if_it_is_not_known(pool: Shelf, part: str, then: str) -> None:
    """What is written afterwards, into all the room that is left, damages no other page."""
    kept = contents(pool)
    raw = Raw(pool)
    dice = random.Random(0)
    for turn in range(24):
        pool.succeed(kept)
        whole = raw.load()
        slot = dice.choice(sorted(kept))
        entry = int.from_bytes(whole[(at := entries(pool) + RECORD * slot) :][:8], "little")
        where = at if part == "the table" else (entry >> 24) * 64
        bit = dice.randrange(64)
        whole[where + bit // 8] ^= 1 << bit % 8
        os.pwrite(raw.fd, whole[where : where + 8], where)
        if then == "recovered":
            pool.succeed(kept)
        content = kept.pop(slot)
        try:
            assert pool.get(slot) == content
        except StoreError as error:
            assert error.errno == errno.EBADMSG
        pool.drop(slot)
        added = {}
        while pool.has_room:
            seed = 10_000 * turn + len(added) + 5000
            new = pool.reserve()
            try:
                pool.write(new, page(seed, PAGE))
            except StoreError as error:
                assert error.errno == errno.ENOSPC
                pool.drop(new)
                break
            added[new] = page(seed, PAGE)
        assert {other: pool.get(other) for other in kept} == kept
        assert {other: pool.get(other) for other in added} == added
        for other in added:
            pool.drop(other)
        pool.succeed(kept)
        if pool.has_room:
            kept[pool.put(content)] = content


@pytest.mark.parametrize("words", ["the table", "headers", "everything"])
def test_the_room_of_rotten_pages_comes_back(pool: Shelf, words: str) -> None:
    """For the pool can tell what nobody has, though not whose it was."""
    raw = Raw(pool)
    kept = contents(pool)
    for turn in range(3):
        whole = raw.load()
        if words != "headers":
            whole[entries(pool) :] = bytes(len(whole) - entries(pool))
        if words != "the table":
            whole[: entries(pool)] = random.Random(turn).randbytes(entries(pool))
        os.pwrite(raw.fd, whole, 0)
        for slot in kept:
            assert is_rotten(pool, slot)
            pool.drop(slot)
        kept = pool.fill(1000 * turn)
        assert not pool.has_room
        assert contents(pool) == kept


def test_a_table_from_the_past_costs_no_page_that_has_got_the_room_since(pool: Shelf) -> None:
    """What is released under it, by this process or by a successor who knows no other table, is no other's room."""
    raw = Raw(pool)
    for turn in range(12):
        past = raw.load()[entries(pool) :]
        dice = random.Random(turn)
        rewritten = dice.sample(sorted(pool.charged), 4)
        for slot in rewritten:
            pool.drop(slot)
        pool.fill(1000 * (turn + 2))
        kept = contents(pool)
        for slot in rewritten[:2]:
            os.pwrite(raw.fd, past[RECORD * slot : RECORD * slot + 8], entries(pool) + RECORD * slot)
        if turn % 2:
            pool.succeed(list(kept))
        for slot in rewritten[:2]:
            content = kept.pop(slot, None)
            if content is not None:
                try:
                    assert pool.get(slot) == content
                except StoreError as error:
                    assert error.errno == errno.EBADMSG
                pool.drop(slot)
        assert {slot: pool.get(slot) for slot in kept} == kept
        pool.fill(1000 * (turn + 20))
        assert {slot: pool.get(slot) for slot in kept} == kept


def test_swapped_entries_of_the_table_are_found(pool: Shelf) -> None:
    raw = Raw(pool)
    kept = contents(pool)
    one, other = sorted(kept)[:2]
    places = [entries(pool) + RECORD * slot for slot in (one, other)]
    records = [os.pread(raw.fd, RECORD, at) for at in places]
    for at, record in zip(places, reversed(records), strict=True):
        os.pwrite(raw.fd, record, at)
    assert is_rotten(pool, one) and is_rotten(pool, other)
    assert all(pool.get(slot) == content for slot, content in kept.items() if slot not in (one, other))


@pytest.mark.parametrize("kind", ["lz4", "zstd"])
def test_a_version_from_the_past_is_found(kind: str, shelves: Any) -> None:
    """The pool's data as it was, the table's word as it was, or both: but for the newest checksum."""
    shelf = shelves(kind, PAGE)
    slot = shelf.put(page(1, PAGE))
    raw = Raw(shelf)
    word = entries(shelf) + RECORD * slot
    history = [raw.load()]
    for seed in range(2, 6):
        if seed == 4:
            shelf.drop(slot)
            assert shelf.reserve() == slot
        shelf.write(slot, page(seed, PAGE))
        newest = raw.load()
        for past in history:
            for data, entry in ((past, newest), (newest, past), (past, past)):
                os.pwrite(raw.fd, data[: entries(shelf)], 0)
                os.pwrite(raw.fd, entry[word : word + 8], word)
                try:
                    assert shelf.get(slot) == page(seed, PAGE), "an older version was believed"
                except StoreError as error:
                    assert error.errno == errno.EBADMSG
            os.pwrite(raw.fd, newest, 0)
        assert shelf.get(slot) == page(seed, PAGE)
        history.append(newest)


def test_a_raw_page_is_checked_as_well(shelves: Any) -> None:
    shelf = shelves("lz4", PAGE)
    content = random.Random(0).randbytes(PAGE)
    slot = shelf.put(content)
    raw = Raw(shelf)
    at = raw.load().index(content)
    for position in range(0, PAGE, 97):
        os.pwrite(raw.fd, bytes([content[position] ^ 4]), at + position)
        assert is_rotten(shelf, slot)
        os.pwrite(raw.fd, content[position : position + 1], at + position)
    assert shelf.get(slot) == content


# -- without the libraries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["cryptography", "xxhash"])
def test_without_a_library_the_error_says_what_to_install(
    module: str, monkeypatch: pytest.MonkeyPatch, shelves: Any
) -> None:
    monkeypatch.setattr(seals if module == "cryptography" else digest, "find_spec", lambda _: None)
    with pytest.raises(StoreError, match=f"pip install {module}"):
        shelves("file" if module == "cryptography" else "plain file", PAGE)
    if module == "xxhash":
        with pytest.raises(StoreError, match="pip install xxhash"):
            shelves("lz4", PAGE)


def test_the_pool_binds_a_page_to_its_slot() -> None:
    """Two pages with the same bytes do not have the same checksum."""
    with closing(Shelf(Compressed(64 * PAGE, "lz4"), PAGE)) as shelf:
        one, other = shelf.put(page(1, PAGE)), shelf.put(page(1, PAGE))
        at = [entries(shelf) + RECORD * slot for slot in (one, other)]
        records = [os.pread(shelf.descriptors[0], RECORD, place) for place in at]
        assert records[0][8:] != records[1][8:]
