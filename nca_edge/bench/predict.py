"""What a board that is not here would need: its peak rate, and the share of the peak that was reached here."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from nca_edge.automaton import Architecture
from nca_edge.backends import CPU
from nca_edge.bench.peak import Peak
from nca_edge.bench.variant import Timing
from nca_edge.profiles import BoardProfile


def predict(profile: BoardProfile, architecture: Architecture, timings: list[Timing], peak: Peak) -> list[dict[str, Any]]:
    """Milliseconds a cell, by precision; empty where the profile knows no rate, or the board has a result of its own."""
    if files("nca_devices").joinpath("results", f"{profile.name}.json").is_file() or profile.cpu is None:
        return []
    cpu, out = profile.cpu, []
    for precision, here, mac_per_cycle in (
        ("fp32", peak.fp32_gmac_per_s, cpu.fp32_mac_per_cycle), ("int8", peak.int8_gmac_per_s, cpu.int8_mac_per_cycle),
    ):  # fmt: skip
        on_cpu = [t for t in timings if t.valid and t.backend != "numpy" and t.provider in (None, CPU)]
        times = [t.cell_ms["p50"] for t in on_cpu if t.precision == precision]
        if not times or mac_per_cycle is None or here is None:
            continue
        share = architecture.macs / 1e6 / min(times) / here
        rate = mac_per_cycle * cpu.clock_ghz * cpu.threads
        latency_ms = architecture.macs / 1e6 / (rate * share)
        out.append({
            "board": profile.name, "precision": precision, "cell_ms": latency_ms, "assumed_share_of_peak": share,
            "sentence": f"{precision} about {latency_ms:.0f} ms a cell on {cpu.threads} threads, if it reaches the same "
            f"{share:.0%} of its nominal {rate:.0f} GMAC/s as this machine does of its measured peak",
        })  # fmt: skip
    return out
