from typing import Any

from thermocline.report.summary import summary


def stat(**changes: Any) -> dict[str, Any]:
    counters = {
        "nodes": {
            "dram": {"capacity": 256 << 20, "used": 0, "peak": 255 << 20},
            "zstd": {"capacity": 1 << 30, "used": 100 << 20, "peak": 700 << 20},
            "file:/scratch": {"capacity": 20 << 30, "used": 0, "peak": 3 << 30},
        },
        "arena": {"peak_resident": 255 << 20},
        "vmstat": {
            "pgfault": 1234567,
            "pgdemote_kswapd": 1000,
            "pgdemote_direct": 34,
            "pgpromote_success": 500,
        },
        "fault_seconds": {"p50": 35e-6, "p99": 210e-6, "p999": 1e-3, "max": 0.02},
    }
    return counters | changes


def test_the_summary_shows_each_node_the_faults_and_the_arena_against_its_budget() -> None:
    assert summary(stat()) == (
        "thermocline: arena at most 255 MiB resident, of 256 MiB\n"
        "  node              used     peak  capacity\n"
        "  dram               0 B  255 MiB   256 MiB\n"
        "  zstd           100 MiB  700 MiB     1 GiB\n"
        "  file:/scratch      0 B    3 GiB    20 GiB\n"
        "  faults 1,234,567 (p50 35 us, p99 210 us)\n"
        "  pages demoted 1,034, promoted 500"
    )


def test_slow_memory_is_the_arenas_too_and_a_candidate_is_not_promoted_yet() -> None:
    nodes = {
        "dram": {"capacity": 256 << 20, "used": 0, "peak": 255 << 20},
        "numa:1": {"capacity": 1 << 30, "used": 0, "peak": 500 << 20},
        "zstd": {"capacity": 1 << 30, "used": 0, "peak": 0},
    }
    counters = {"pgfault": 1, "pgpromote_success": 5, "pgpromote_candidate": 100}
    text = summary(stat(nodes=nodes, arena={"peak_resident": 700 << 20}, vmstat=counters))
    assert text.startswith("thermocline: arena at most 700 MiB resident, of 1.2 GiB\n")
    assert text.endswith("promoted 5")


def test_without_faults_there_are_no_percentiles() -> None:
    text = summary(stat(vmstat={"pgdemote_kswapd": 1}, fault_seconds={"p50": None, "p99": None}))
    assert "\n  faults 0\n" in text


def test_a_run_that_tiered_nothing_says_so_in_one_line() -> None:
    text = summary(stat(arena={"peak_resident": 0}, vmstat={"pgfault": 0}))
    assert text.startswith("thermocline: nothing was tiered")
    assert "\n" not in text


def test_a_program_that_another_has_replaced_is_told_that_this_one_was_not_tiered() -> None:
    text = summary(stat(arena={"peak_resident": 0}, vmstat={"pgfault": 0}, replaced=True))
    assert "was not tiered" in text and "--min-array" not in text
    assert "\n" not in text
    assert summary(stat(replaced=True)) == f"{summary(stat(replaced=False))}\n{text}"
