"""What may go wrong by injection (see ``live/injection.py``), as hypothesis chooses it."""

from __future__ import annotations

from hypothesis import strategies as st

#: Effects that every workload brings about.
POINTS = ("Commit", "CopyList", "Fill", "Lock", "Punch", "Release", "Remap", "Reserve", "TryLock", "Unmap", "Unlock")

_nodes = st.sampled_from(["lz4", "zstd", "file"])
_calls = st.integers(1, 200)
kills_at_points = st.builds(
    "kill {} {} {}".format, st.sampled_from(["before", "after"]), st.sampled_from(POINTS), st.integers(1, 60)
)
failing_writes = st.builds("fail write {} {} {}".format, _nodes, st.sampled_from(["EIO", "ENOSPC", "EAGAIN"]), _calls)
failing_reads = st.builds("fail read {} EIO {}".format, _nodes, _calls)
stalls = st.builds("hang any file {} 20ms".format, _calls)
deaths_of_nodes = st.builds("fail {} {} EIO {} on".format, st.sampled_from(["write", "any"]), _nodes, _calls)
#: Kills, what loses nothing, what may lose a page, and deaths of nodes.
what_goes_wrong = st.tuples(
    st.lists(kills_at_points, max_size=2),
    st.lists(st.one_of(failing_writes, stalls), max_size=3),
    st.lists(failing_reads, max_size=2),
    st.lists(deaths_of_nodes, max_size=1),
)
