"""Damage that is done to what a store holds: each kind changes copies of the store's bytes, by dice."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layout import Field, Images, Page

#: Bytes that are zeroed at once: a word, a cache line, a sector, a page, and more.
LENGTHS = (8, 64, 512, 4096, 9000)


@dataclass
class Victim:
    """What damage is done to.

    Attributes
    ----------
    number : int
        Which point it is: what there is few of is taken in turn.
    past, past_fields : Images, list of Field
        The same before some pages were written again.
    """

    number: int
    dice: random.Random
    images: Images
    fields: list[Field]
    past: Images
    past_fields: list[Field]

    def turn(self, choices: Sequence[str]) -> str:
        """One after the other."""
        return choices[self.number % len(choices)]

    def field(self, name: str, page: Page) -> Field | None:
        """A field of a page; None if it has none of this name."""
        return next((field for field in self.fields if field.name == name and page in field.pages), None)

    def past_field(self, name: str, page: Page) -> Field | None:
        """The same of the past."""
        return next((field for field in self.past_fields if field.name == name and page in field.pages), None)

    @property
    def pages(self) -> list[Page]:
        """Pages that the store holds."""
        return sorted({page for field in self.fields if field.name == "record" for page in field.pages})


def flip(victim: Victim) -> None:
    """One bit: of each kind of field in turn, at its first byte, its last and any; now and then anywhere at all."""
    dice = victim.dice
    if victim.number % 8 == 7:
        image = victim.images[dice.choice(sorted(victim.images))]
        at = dice.randrange(len(image))
    else:
        name = victim.turn(sorted({field.name for field in victim.fields}))
        field = dice.choice([field for field in victim.fields if field.name == name])
        image = victim.images[field.image]
        at = field.start + dice.choice(
            [0, field.length - 1, dice.randrange(field.length), dice.randrange(field.length)]
        )
    image[at] ^= 1 << dice.randrange(8)


def zero(victim: Victim) -> None:
    """A range of bytes, from the beginning of a field or from within."""
    field = victim.dice.choice([field for field in victim.fields if field.name != "key"])
    image = victim.images[field.image]
    start = field.start + victim.dice.choice([0, victim.dice.randrange(field.length)])
    end = min(start + LENGTHS[victim.number % len(LENGTHS)], len(image))
    image[start:end] = bytes(end - start)


def swap(victim: Victim, *, same_array: bool) -> None:
    """What the store holds of two pages, whole or in part."""
    one = victim.dice.choice(victim.pages)
    rest = [page for page in victim.pages if page != one]
    others = [page for page in rest if (page[0] == one[0]) == same_array] or rest
    other = victim.dice.choice(others)
    if "seals" in victim.images:
        names = victim.turn(["page", "page record", "record"]).split()
    else:
        names = victim.turn(["record", "entry", "header data", "entry checksum"]).split()
    for name in names:
        here, there = victim.field(name, one), victim.field(name, other)
        assert here is not None and there is not None
        length = min(here.length, there.length)
        first, second = here.of(victim.images)[:length], there.of(victim.images)[:length]
        victim.images[here.image][here.start : here.start + length] = second
        victim.images[there.image][there.start : there.start + length] = first


def stale(victim: Victim) -> None:
    """What the store held of a page before it was written again, but for what proves that it is the newest."""
    images, past = victim.images, victim.past
    if "seals" not in images:
        what = victim.turn(["data", "entry", "data entry"])
        table = min(field.start for field in victim.fields if field.name == "record")
        for field in victim.fields:
            if field.name == "entry" and "entry" in what:
                images["store"][field.start : field.start + field.length] = field.of(past)
        if "data" in what:
            images["store"][:table] = past["store"][:table]
        return
    encrypted = any(field.name == "count" and field.counts for field in victim.fields)  # a nonce is made from it
    for page in victim.pages:
        for name in victim.turn(["page", "page tag" if encrypted else "page"]).split():
            now, then = victim.field(name, page), victim.past_field(name, page)
            if now is not None and then == now:  # in the same slot
                images[now.image][now.start : now.start + now.length] = now.of(past)


def cut(victim: Victim) -> None:
    """The end of the file: at its beginning, between two pages and within one."""
    image = victim.images["store"]
    field = victim.dice.choice([field for field in victim.fields if field.name == "page"])
    places = {"beginning": 0, "between": field.start, "within": field.start + victim.dice.randrange(field.length)}
    del image[places[victim.turn(list(places))] :]


def swap_within(victim: Victim) -> None:
    """Two pages of an array."""
    swap(victim, same_array=True)


def swap_across(victim: Victim) -> None:
    """Two pages of different arrays."""
    swap(victim, same_array=False)


DAMAGES: dict[str, Callable[[Victim], None]] = {
    "a flipped bit": flip,
    "zeros": zero,
    "swapped in an array": swap_within,
    "swapped over arrays": swap_across,
    "a stale version": stale,
    "a file cut short": cut,
}
