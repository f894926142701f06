"""What processes say to the supervisor: nothing that it gets ends it, and every request gets an answer."""

import os
import socket
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thermocline import Memory
from thermocline.live import control
from thermocline.live.channel import Channel
from thermocline.live.control import Packet

WORDS = ["source", "drop", "listen", "share", "unshare", "hold", "release", "join", "detach", "refused", "", "#", "é"]


def is_well(memory: Memory, tmp_file: str) -> None:
    """A memory serves as ever."""
    assert np.unique(memory.from_file(tmp_file)).tolist() == [1.0]
    assert not memory.zeros(100_000).any()
    assert memory.stat()["pager"]["starts"] == 1


_packets = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(
        lambda word, numbers: " ".join([word, *map(str, numbers)]).encode(),
        st.sampled_from(WORDS),
        st.lists(st.one_of(st.integers(-2, 3), st.integers(), st.floats()), max_size=5),
    ),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(said=[b"source 1 0 2.5", b"drop 1", b"drop 77", b"unshare 9", b"share 99999999 1 0 1", b"nonsense"], fds=1)
@given(said=st.lists(_packets, min_size=1, max_size=5), fds=st.integers(0, 5))
def test_no_packet_ends_the_supervisor(memory: Memory, tmp_path: object, said: list[bytes], fds: int) -> None:
    file = f"{tmp_path}/file"
    np.ones(1000).tofile(file)
    attachment = memory._regions.session.attachment
    for packet in said:
        if packet.split(b"#")[0].split(b" ")[0] in (b"source", b"close", b"attach", b"child", b"unshare"):
            packet = b"x" + packet  # understood, these change what this process has  # noqa: PLW2901
        with open(os.devnull, "rb") as null:
            attachment.peer.send(packet, [null.fileno()] * fds)
    is_well(memory, file)


def test_a_question_that_makes_no_sense_is_refused_and_not_left_without_an_answer(memory: Memory) -> None:
    attachment = memory._regions.session.attachment
    for word, numbers in (
        ("nonsense", ()),
        ("source", (1, 2)),
        ("hold", (7,)),
        ("share", (1 << 40, 1, 1, 1)),
        ("", ()),
    ):
        assert attachment.ask(word, *numbers) is None
    assert memory.zeros(3).tolist() == [0, 0, 0]


def test_what_cannot_be_sent_is_said_at_once(memory: Memory) -> None:
    attachment = memory._regions.session.attachment
    with pytest.raises(TypeError):
        attachment.ask("source", 1, 0, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="longer"):
        attachment.ask("source", 10**300)
    assert memory.zeros(3).tolist() == [0, 0, 0]


def test_a_late_answer_is_not_taken_for_the_next_one(memory: Memory, tmp_path: object) -> None:
    """A signal handler may raise while a question has no answer yet."""
    attachment = memory._regions.session.attachment
    control.send(attachment.peer, "share", 0, 1, 0, 1, token=1 << 40)
    control.send(attachment.peer, "nonsense")
    answer = attachment.ask("share", 1, 2, 0, 1)
    assert answer is not None
    assert answer.word == "share"
    for slot in (0, 1):
        assert attachment.tell("unshare", slot)


def test_packets_arrive_as_they_were_sent() -> None:
    ours, theirs = Channel.pair(socket.SOCK_SEQPACKET)
    with closing(theirs):
        with closing(ours):
            control.send(ours, "word", 1, -(1 << 63), token=5)
            assert control.receive(theirs) == Packet("word", (1, -(1 << 63)), (), 5)
            for unreadable in (b"word 2.5", b"word x", b"\xff", b"word#x", b"x" * 257, b""):
                ours.send(unreadable)
                assert control.receive(theirs) == Packet(control.UNREADABLE)
        assert control.receive(theirs) is None
