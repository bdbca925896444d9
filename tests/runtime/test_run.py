"""`nca-edge run` by the program itself: what it leaves, and the same input gives the same bytes."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from done import Call
from fieldruns import Write, lines
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.bundle import load_bundle, shipped_models

CELL_KEYS = [
    "field", "cell", "box", "label", "confidence", "unsure", "counted", "border", "probabilities", "top_channels", "mask",
    "crop", "overlay", "focus", "um_per_px", "scale_source", "outside_share", "rests_on_background", "measures",
]  # fmt: skip


class Whole(NamedTuple):
    """An uninterrupted run by the program itself."""

    session: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def whole(fields: Path, program: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    session = tmp_path_factory.mktemp("whole") / "session"
    command = [str(program), "run", str(fields), "--out", str(session), "--threads", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return Whole(session, done.stdout, done.stderr)


def test_json_and_nothing_else(whole: Whole) -> None:
    rows = [json.loads(line) for line in whole.out.splitlines()]
    assert [row.get("field") for row in rows] == ["a.jpg", "b.jpg", "slide 2/c.jpg", None]
    for row in rows[:3]:
        assert list(row) == ["field", "accepted", "reasons", "n_cells", "um_per_px", "cells"]
        assert row["n_cells"] == len(row["cells"])
    summary = rows[3]["summary"]
    assert list(rows[3]) == ["summary"]
    assert (summary["fields"], summary["failed"], summary["interrupted"]) == (3, 0, False)
    assert summary["session"] == str(whole.session) and summary["notice"] == RESEARCH_USE
    assert whole.err == f"session: {whole.session}\n"  # no bar: nobody watches


def test_cells_key_by_key(whole: Whole) -> None:
    manifest = load_bundle(shipped_models() / "edge").manifest
    cells = lines(whole.session / "cells.jsonl")
    assert cells
    for cell in cells:
        assert list(cell) == CELL_KEYS
        assert cell["field"] in ("a.jpg", "b.jpg", "slide 2/c.jpg")
        assert [type(v) for v in cell["box"]] == [int] * 4 and min(cell["box"]) >= 0
        assert list(cell["probabilities"]) == list(manifest.classes)
        assert cell["label"] == max(cell["probabilities"], key=cell["probabilities"].get)
        assert cell["confidence"] == cell["probabilities"][cell["label"]]
        assert sum(cell["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert [type(cell[key]) for key in ("unsure", "counted", "border")] == [bool] * 3
        assert cell["unsure"] == (cell["confidence"] < manifest.unsure_below)
        assert cell["counted"] == (cell["label"] != "artefact" and not cell["border"])
        assert [list(top) for top in cell["top_channels"]] == [["channel", "relevance", "peak"]] * 10
        with Image.open(whole.session / cell["mask"]) as mask, Image.open(whole.session / cell["crop"]) as crop:
            assert (mask.mode, crop.mode, mask.size) == ("L", "RGB", crop.size)
            assert set(np.unique(np.asarray(mask)).tolist()) <= {0, 128, 255}
            assert all(0 <= v < crop.width for top in cell["top_channels"] for v in top["peak"])
        assert cell["um_per_px"] > 0 and cell["scale_source"] in ("session", "red_cells", "cell_size", "view")
    by_field = [[c["cell"] for c in cells if c["field"] == name] for name in ("a.jpg", "b.jpg", "slide 2/c.jpg")]
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_field)


def test_fields_key_by_key(whole: Whole) -> None:
    fields = lines(whole.session / "fields.jsonl")
    cells = lines(whole.session / "cells.jsonl")
    assert [field["field"] for field in fields] == ["a.jpg", "b.jpg", "slide 2/c.jpg"]
    for field in fields:
        assert list(field) == ["field", "accepted", "reasons", "n_cells", "um_per_px"]
        assert field["accepted"] is True and field["reasons"] == []
        assert field["n_cells"] == sum(cell["field"] == field["field"] for cell in cells)


def test_stopped_and_resumed_gives_the_same_bytes(
    whole: Whole, fields: Path, program: Path, call: Call, tmp_path: Path
) -> None:
    session = tmp_path / "my session"
    command = [str(program), "run", str(fields), "--out", str(session), "--threads", "1", "--json"]
    # a shell's background job ignores Ctrl-C, and so would its children
    heeding: Callable[[], object] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, preexec_fn=heeding, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()  # printed after its commit
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(first)["field"] == "a.jpg"
    told = [json.loads(line) for line in rest.splitlines()]
    assert told[-1]["summary"]["interrupted"] is True
    kept = [json.loads(first)["field"], *(row["field"] for row in told[:-1])]
    assert len(kept) < 3
    assert [row["field"] for row in lines(session / "fields.jsonl")] == kept
    again = shlex.join(["nca-edge", "run", str(fields), "--session", str(session)])
    assert err.splitlines() == [
        f"session: {session}",
        f"What was read is kept; go on with: {again}",
        "Stopped.",
    ]
    assert call("report", session).code == 0

    done = call(*shlex.split(again)[1:])
    assert done.code == 0
    assert f"{len(kept)} of 3 fields are in the session already" in done.err
    for name in ("cells.jsonl", "fields.jsonl", "cells.csv"):
        assert (session / name).read_bytes() == (whole.session / name).read_bytes()


def test_terminated(fields: Path, program: Path, tmp_path: Path) -> None:
    """SIGTERM, as a shutdown sends it, while the model is loaded or the first field is read."""
    session = tmp_path / "session"
    command = [str(program), "run", str(fields), "--out", str(session), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("session:")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "Stopped." and "Traceback" not in err
    assert (session / "report.html").is_file() and "0 leukocytes counted" in out


def test_the_bar_is_for_a_terminal(program: Path, dark: Write, tmp_path: Path) -> None:
    source = dark(tmp_path / "in" / "a.png").parent
    (source / "b.png").write_text("no image")
    main, other = pty.openpty()
    command = [str(program), "run", str(source), "--out", str(tmp_path / "s"), "--backend", "onnx"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=other, timeout=60)
    os.close(other)
    seen = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:  # the other end is closed and empty
            break
        if not chunk:
            break
        seen += chunk
    os.close(main)
    assert done.returncode == 1 and b"1/2" not in done.stdout
    text = seen.decode()
    assert "\r[###############...............] 1/2" in text and "\r[##############################] 2/2\r\n" in text
    assert "\r\x1b[Kb.png: not an image" in text  # a sentence takes the bar's line, it does not stand behind it
