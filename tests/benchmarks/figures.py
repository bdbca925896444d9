"""Write the tables of figures from the files that the other programs wrote; a test checks that the pages still say the same.

Usage: python tests/benchmarks/figures.py        (rewrites the block between the figures marks in README.md, and that between
the masks marks in train/README.md)
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- end of figures -->)", re.DOTALL)
MASKS = re.compile(r"(<!-- masks -->\n).*?(<!-- end of masks -->)", re.DOTALL)


def read(name: str) -> Any:
    """One results file."""
    return json.loads((RESULTS / name).read_text("utf-8"))


def percent(value: float, interval: list[float]) -> str:
    """A share with its 95 % interval."""
    return f"{100 * value:.1f} % ({100 * interval[0]:.1f} - {100 * interval[1]:.1f})"


def span(value: float, interval: list[float]) -> str:
    """A figure with its 95 % interval."""
    return f"{value:.3f} ({interval[0]:.3f} - {interval[1]:.3f})"


RUNTIMES = {"onnx": "ONNX Runtime", "litert": "LiteRT", "native": "compiled step"}
Row = tuple[str, str, str, str]


def naming_rows() -> list[Row]:
    """How well cells are named, at home and in fields of another clinic."""
    home, away = read("validation.json"), read("naming.json")
    cells, file = f"{home['n']} cells", "validation.json"
    accuracy = percent(home["accuracy"], [home["accuracy_low"], home["accuracy_high"]])
    sure = f"{100 * home['coverage']:.1f} %, {100 * home['accuracy_when_sure']:.1f} %"
    right = percent(away["right"] / away["found"], away["right_interval"])
    calibration = span(home["calibration_error"], home["calibration_error_interval"])
    return [
        ("ten classes right, Acevedo-20 fold 3b, an artefact answer is an error", accuracy, cells, file),
        ("macro-F1 there", span(home["macro_f1"], home["macro_f1_interval"]), cells, file),
        ("expected calibration error there", calibration, cells, file),
        ("answers that are not unsure there, and how many of these are right", sure, cells, file),
        *(
            (
                f"best of five groups right, cut out by a person ({clinic['set']})",
                percent(clinic["accuracy"], clinic["interval"]),
                f"{clinic['n']} cells",
                "clinics.json",
            )
            for clinic in read("clinics.json")["sets"]
        ),
        ("five groups right in fields of another clinic (chula)", right, f"{away['found']} cells", "naming.json"),
        (
            "cells that count there (whole, no artefact) and are boxed white cells",
            percent(away["counted_true"] / away["counted"], away["counted_interval"]),
            f"{away['counted']} cells",
            "naming.json",
        ),
        *steadiness_rows(),
    ]


def steadiness_rows() -> list[Row]:
    """Answers that change where they should not."""
    steady = read("schedules.json")
    rows = []
    for result in steady["sets"]:
        scale = "scale estimated" if result["um_per_px"] is None else "scale given"
        what = f"answers that change between two fire schedules, {result['set']}, {scale}"
        rows.append((what, f"{100 * result['changed_pairs']:.1f} %", f"{result['n']} cells", "schedules.json"))
    changed = percent(steady["changed_by_scale"], steady["changed_by_scale_interval"])
    what = "answers that change when the scale is estimated, Acevedo-20 fold 3b"
    return [*rows, (what, changed, f"{steady['sets'][0]['n']} cells", "schedules.json")]


def detection_rows() -> list[Row]:
    """How well cells are found."""
    rows = []
    for found in read("detection.json"):
        name, file = found["set"], "detection.json"
        recall = percent(found["recall"], found["recall_interval"])
        precision = percent(found["precision"], found["precision_interval"])
        rows.append((f"white cells found, {name}", recall, f"{found['true']} boxes", file))
        rows.append((f"finds that are boxed white cells, {name}", precision, f"{found['found']} finds", file))
        if found["median_scale_error"] is not None:
            error = f"{100 * found['median_scale_error']:.1f} %"
            rows.append((f"scale from the red cells, median error, {name}", error, f"{found['fields']} fields", file))
    return rows


def gate_rows() -> list[Row]:
    """What the quality gate refuses and lets through, and cells found through a poor camera."""
    rows = []
    gate = read("gate.json")
    for key, what in (
        ("good_rejected", "good fields that the gate refuses"),
        ("bad_passed", "spoilt fields that it lets through"),
    ):
        found = gate[key]
        rows.append(
            (f"{what}, bccd and chula", percent(found["share"], found["interval"]), f"{found['n']} fields", "gate.json")
        )
    for found in read("detection_changes.json") if (RESULTS / "detection_changes.json").exists() else []:
        if found["change"] in ("poor camera", "poorest camera"):
            file, what = "detection_changes.json", f"{found['set']}, {found['change']}"
            recall, precision = (percent(found[key], found[f"{key}_interval"]) for key in ("recall", "precision"))
            rows.append((f"white cells found, {what}", recall, f"{found['true']} boxes", file))
            rows.append((f"finds that are boxed white cells, {what}", precision, f"{found['found']} finds", file))
    return rows


def mask_rows() -> list[Row]:
    """How well masks meet those that a person drew."""
    rows = []
    for result in read("masks.json"):
        cells = f"{result['n']} cells"
        whole, nucleus = (
            span(result["cell"]["ours"], result["cell_interval"]),
            span(result["nucleus"], result["nucleus_interval"]),
        )
        rows.append((f"overlap (IoU) of the cell's mask, {result['set']}", whole, cells, "masks.json"))
        rows.append((f"overlap (IoU) of the nucleus, {result['set']}", nucleus, cells, "masks.json"))
    return rows


def trust_rows() -> list[Row]:
    """How far explanations can be trusted, of the bundle in float32."""
    t = read("explanations.json")["fp32"]
    cells, tried, file = f"{t['n']} cells", f"{t['overlap']['n']} cells", "explanations.json"
    share = lambda value: f"{100 * value:.1f} %"  # noqa: E731
    deletion = f"{t['deletion']['ratio']:.2f}"
    plain = f"{t['deletion']['ratio_relevance_first']:.2f}"
    return [
        ("area under the deletion curve, strongest channels first, against random order", deletion, cells, file),
        ("the same, in the order of absolute relevance", plain, cells, file),
        ("relevance that peaks in a grid cell which the mask touches", share(t["peaks"]["inside"]), cells, file),
        ("the same, where the middle of the grid cell is in the mask", share(t["peaks"]["center"]), cells, file),
        ("ten strongest channels that stay under rotation", share(t["overlap"]["rotation"]), tried, file),
        ("ten strongest channels that stay under flip", share(t["overlap"]["flip"]), tried, file),
        ("ten strongest channels that stay under another fire schedule", share(t["overlap"]["fire"]), tried, file),
        ("ten strongest channels that stay in int8", share(t["overlap"]["precision"]), tried, file),
        *several_rows(t["several"], file),
        ("cells flagged, relevance outside the cell", share(t["flagged"]["n"] / t["n"]), cells, file),
    ]


def several_rows(t: dict[str, Any], file: str) -> list[Row]:
    """What `classify --explain` shows, from all looks."""
    cells, whole = f"{t['n']} cells", f"explained from {t['looks']} looks (`classify --explain`)"
    stay = f"{100 * t['overlap']['rotation']:.1f} %, {100 * t['overlap']['flip']:.1f} %"
    peaks = f"{100 * t['peaks']['inside']:.1f} %, {100 * t['peaks']['center']:.1f} %"
    return [
        (f"{whole}: ten strongest channels that stay under rotation, flip", stay, cells, file),
        (f"{whole}: area under the deletion curve against random order", f"{t['deletion']['ratio']:.2f}", cells, file),
        (f"{whole}: relevance that peaks in the cell, its grid cell or its middle", peaks, cells, file),
    ]


def microscope_rows() -> list[Row]:
    """Simulated pans, cameras that are pulled and plugged in, and a long count."""
    rows = []
    for pan in read("pans.json"):
        n = f"{pan['cells']} cells, {pan['sheets']} sheets"
        for what, key in (("counted twice", "twice"), ("missed", "missed")):
            share = percent(pan[f"{key}_share"], pan[f"{key}_interval"])
            rows.append((f"cells {what} in simulated pans, {pan['set']}", share, n, "pans.json"))
    for camera in read("replug.json"):
        back = f"{camera['back_s_median']:.2f} s, at worst {camera['back_s_worst']:.2f} s"
        n = f"{camera['cycles']} cycles, {camera['stale']} stale pictures"
        rows.append((f"a camera that was pulled is back after, {camera['stand_in']} stand-in", back, n, "replug.json"))
    soak, file = read("soak.json"), "soak.json"
    n = f"{soak['minutes']:.0f} minutes, {soak['fields_stored']} fields"
    grown = f"{soak['memory_slope_mb_per_hour']:+.0f} MB an hour, at most {soak['memory_mb_most']:.0f} MB"
    return [
        *rows,
        ("memory of a simulated live count with its slide (49 fields in memory), after its first quarter", grown, n, file),
    ]


def machine_rows() -> list[Row]:
    """What it costs, and that the backends agree."""
    parity, size = read("parity.json"), read("install_size.json")
    rows = []
    for v in parity["variants"]:
        what = f"answers as the NumPy reference's, {RUNTIMES[v['backend']]} {v['precision']}, fold {parity['fold']}"
        rows.append((what, percent(v["agreement"], v["agreement_interval"]), f"{parity['n']} cells", "parity.json"))
    rows += [*model_rows(), *time_rows()]
    for m in read("startup.json")["measures"]:
        runs = "1 run" if m["repeats"] == 1 else f"{m['repeats']} runs"
        rows.append((f"{m['name']}, 2-core x86-64", f"{m['value']:.2f} {m['unit']}", runs, "startup.json"))
    total = f"{size['total_mb']:.0f} MB"
    rows.append(("bare installation, all that it brings", total, f"Python {size['python']}", "install_size.json"))
    return rows


def model_rows() -> list[Row]:
    """How long the automaton takes of a cell, and what PyTorch takes for the paper's."""
    found, file = read("graphs.json"), "graphs.json"
    times, n = found["latency_ms"], f"{found['rounds']} runs"
    ours = {
        preset: min(ms for name, ms in times.items() if name.startswith(f"{preset}: ") and name.endswith("int8"))
        for preset in ("paper", "paper, half-lattice", "edge")
    }
    turns = ("", ", channels_last")
    faster = [
        ", ".join(f"{times[f'plain PyTorch{turn}'] / ms:.{0 if ms < 100 else 1}f}" for ms in ours.values()) for turn in turns
    ]
    return [
        ("one look at a cell, shipped model, int8, one thread, 2-core x86-64", f"{ours['edge']:.1f} ms", n, file),
        ("plain PyTorch of the paper's automaton there, its state turned as in the released code; as channels_last",
         "; ".join(f"{times[f'plain PyTorch{turn}']:.0f} ms" for turn in turns), n, file),
        ("ours in int8, times as fast as the first; the second: the paper's exact rule, under half-lattice, the shipped model",
         "; ".join(faster), n, file),
    ]  # fmt: skip


def time_rows() -> list[Row]:
    """How long a person waits for a field, warm."""
    field, live = read("field.json"), read("live.json")
    times = [
        ("a field within a session, from its file to its stored cells", "field.json", field["ms"]["field"], field["repeats"]),
        ("a picture of the camera, until its cells are stored", "live.json", live["frame_to_stored_ms"], live["fields"]),
    ]
    return [
        (
            f"{what}, 640 x 480 px, int8, 2-core x86-64",
            f"{t['p50']:.0f} ms, one in ten over {t['p90']:.0f} ms",
            f"{n} fields",
            file,
        )
        for what, file, t, n in times
    ]


def durability_rows() -> list[Row]:
    """What a session keeps when its process is killed, or the power goes."""
    found, file = read("durability.json"), "durability.json"
    kills, cuts = found["kill_9"], found["power_cuts"][0]
    n = f"{kills['acknowledged']} changes"
    return [
        (f"acknowledged changes lost in {kills['times']} kill -9 under load", str(kills["lost"]), n, file),
        (
            "simulated power cuts that lost an acknowledged change, or left something damaged",
            f"{cuts['lost']}, {cuts['corrupt']}",
            f"{cuts['states']} cuts",
            file,
        ),
    ]


def table() -> str:
    """Markdown of the whole block."""
    rows = [
        *naming_rows(), *detection_rows(), *gate_rows(), *mask_rows(), *trust_rows(), *microscope_rows(),
        *machine_rows(), *durability_rows(),
    ]  # fmt: skip
    lines = ["| what | figure (95 % interval) | n | file |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def stage(row: dict[str, Any]) -> str:
    """How far a run of a preset has come."""
    told = lambda value: f"{value:g}" if isinstance(value, float) else str(value)  # noqa: E731
    instead = "".join(f", {key} {told(mine)} instead of {told(theirs)}" for key, (mine, theirs) in row["instead"].items())
    named = f"{100 * row['validation_accuracy']:.1f} % of half 3a right"
    return f"{instead}, {row['epochs']} of {row['epochs_of_preset']} epochs, {named}"


def mask_table() -> str:
    """Markdown of masks as NCA-WSS makes them, and as we do, on several models."""
    lines = ["| model | mask | segwbc1 | segwbc2, among red cells |", "|---|---|---|---|"]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in read("yardstick.json"):
        trained = stage(row) if "epochs" in row else ""
        cells.setdefault((row["model"] + trained, row["recipe"]), {})[row["set"]] = span(row["cell"], row["interval"])
    for (model, recipe), found in cells.items():
        how = "ours" if recipe == "ours" else "last state, first component, Otsu"
        lines.append(f"| {model} | {how} | {found['segwbc1']} | {found['segwbc2']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite the blocks."""
    for name, block, written in (("README.md", BLOCK, table()), ("train/README.md", MASKS, mask_table())):
        text = (ROOT / name).read_text("utf-8")
        (ROOT / name).write_text(block.sub(lambda m, new=written: m[1] + new + m[2], text), "utf-8")


if __name__ == "__main__":
    main()
