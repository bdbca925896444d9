"""`nca-edge run`: what is read is kept, whatever happens in between, and the same input gives the same bytes."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from nca_edge import RESEARCH_USE, runner
from nca_edge.bundle import load_bundle, shipped_models
from nca_edge.classifier import ModelChoice
from nca_edge.errors import StorageError, UsageError
from nca_edge.records import (
    Box,
    CellReading,
    ChannelRelevance,
    Detection,
    Explanation,
    Frame,
    FrameError,
    Prediction,
    Reading,
    Scale,
)
from nca_edge.session import Session, State

Call = Callable[..., Any]
Write = Callable[[Path], Path]
CHOICE = ModelChoice(backend="onnx", threads=1)
CELL_KEYS = [
    "field", "cell", "box", "label", "confidence", "unsure", "counted", "border", "probabilities", "top_channels", "mask",
    "crop", "overlay", "focus", "um_per_px", "scale_source", "outside_share", "rests_on_background", "measures",
]  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


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


# --- the same in this process, with rejected or made-up fields: fast


def test_good_and_broken_together(fields: Path, dark: Write, call: Call, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(fields, source)
    (source / "slide 2" / "c.jpg").unlink()
    (source / "b.jpg").unlink()
    whole = (source / "a.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "text.png").write_text("no image")
    Image.new("RGB", (1, 1)).save(source / "dot.png")
    dark(source / "weiße\nZelle.png")
    done = call("run", source, "--out", tmp_path / "s", "--threads", "1")
    assert done.code == 1
    told = {field["field"]: field for field in lines(tmp_path / "s" / "fields.jsonl")}
    assert list(told) == ["a.jpg", "cut.jpg", "dot.png", "text.png", "weiße\nZelle.png"]
    assert [field["accepted"] for field in told.values()] == [True, False, False, False, False]
    assert told["cut.jpg"]["reasons"] == ["cannot be read (damaged or cut short); copy it again from its source."]
    assert told["text.png"]["reasons"] == ["not an image that can be read; save it as JPEG or PNG."]
    assert "too small" in told["dot.png"]["reasons"][0] and "under-exposed" in told["weiße\nZelle.png"]["reasons"][0]
    assert done.out.startswith("5 fields: 2 rejected, 2 unreadable.")
    assert done.err.splitlines()[1:] == [
        "cut.jpg: cannot be read (damaged or cut short); copy it again from its source.",
        "text.png: not an image that can be read; save it as JPEG or PNG.",
    ]
    assert call("report", tmp_path / "s") == (0, f"{tmp_path / 's' / 'report.html'}\n", "")


def test_a_scale_that_cannot_be(fields: Path, call: Call, tmp_path: Path) -> None:
    done = call("run", fields / "a.jpg", "--out", tmp_path / "s", "--um-per-px", "2", "--threads", "1")
    assert done.code == 0
    (field,) = lines(tmp_path / "s" / "fields.jsonl")
    assert field["field"] == "a.jpg" and "check the scale" in field["reasons"][0]


def test_out_on_a_session_and_session_with_other_choices(dark: Write, call: Call, tmp_path: Path) -> None:
    source, session = dark(tmp_path / "in" / "a.png").parent, tmp_path / "s"
    assert call("run", source, "--out", session, "--backend", "onnx", "--threads", "1", "--um-per-px", "0.1").code == 0
    before = (session / "session.db").read_bytes()
    refused = call("run", source, "--out", session)
    assert refused.code == 2 and f"resume it with --session {session}" in refused.err
    for option, value, said in (
        ("--threads", "2", "threads 1"),
        ("--um-per-px", "0.2", "--um-per-px 0.1"),
        ("--backend", "numpy", "backend onnx"),
    ):
        refused = call("run", source, "--session", session, option, value)
        assert (refused.code, refused.out) == (2, "")
        assert said in refused.err and "resume with what it began with" in refused.err
    assert (session / "session.db").read_bytes() == before
    resumed = call("run", source, "--session", session)
    assert resumed.code == 0 and "1 of 1 fields are in the session already" in resumed.err


def test_the_session_lies_in_its_source(fields: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own pictures are never read as fields: neither in a folder of the source, nor where it is the source."""
    shutil.copy(fields / "b.jpg", tmp_path / "b.jpg")
    monkeypatch.chdir(tmp_path)
    assert call("run", ".", "--out", ".", "--threads", "1").code == 0
    assert list((tmp_path / "cells").glob("*.png"))
    assert call("run", ".", "--session", ".").code == 0
    assert call("run", ".", "--threads", "1", "--um-per-px", "2").code == 0  # a session of its own, in ./sessions
    assert [field["field"] for field in lines(tmp_path / "cells.jsonl")] == ["b.jpg"]
    assert [field["field"] for field in lines(tmp_path / "sessions" / f"{tmp_path.name}-1" / "fields.jsonl")] == ["b.jpg"]


def test_places_that_cannot_be_written(dark: Write, small_disk: Callable[[str], Path], call: Call, tmp_path: Path) -> None:
    source = dark(tmp_path / "in" / "a.png").parent
    (tmp_path / "file").touch()
    done = call("run", source, "--out", tmp_path / "file" / "s")
    assert done.code == 1 and "Not a directory" in done.err
    disk = small_disk("ro")
    done = call("run", source, "--out", disk / "s")
    assert done.code == 1 and "is read-only" in done.err and done.err.count("\n") == 1


def test_a_disk_that_fills_up(small_disk: Callable[[str], Path], made_up: MadeUp, call: Call) -> None:
    """Some fields fit; what was committed stays, and after making room the run goes on."""
    disk = small_disk("size=16250k")  # what a commit leaves free, and a little more
    (disk / "filler").write_bytes(b"x" * 250_000)
    source = made_up.source(40)
    done = call("run", source, "--out", disk / "s", "--threads", "1", "--backend", "onnx")
    assert done.code == 1 and done.out == ""
    assert (
        "MB are free on the disk" in done.err
        and "no space left" in done.err.lower()
        and "resume with --session" in done.err
        and "Traceback" not in done.err
    )
    with sqlite3.connect(disk / "s" / "session.db") as db:
        (kept,) = db.execute("SELECT count(*) FROM field").fetchone()
    db.close()
    assert 0 < kept < 40
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    assert call("report", disk / "s").code == 0
    done = call("run", source, "--session", disk / "s")
    assert done.code == 0
    assert [field["field"] for field in lines(disk / "s" / "fields.jsonl")] == [f"{n:02}.png" for n in range(40)]


class MadeUp:
    """Fields whose reading is made up: one lymphocyte each, without a look at the pixels."""

    def __init__(self, folder: Path, dark: Write) -> None:
        self.folder, self.dark = folder, dark
        self.before_field: Callable[[str], None] = lambda name: None
        self.classes = load_bundle(shipped_models() / "edge").manifest.classes

    def source(self, n: int) -> Path:
        for number in range(n):
            self.dark(self.folder / f"{number:02}.png")
        return self.folder

    def observe(self, frames: Iterable[Frame | FrameError], *_: object) -> Iterator[Reading]:
        for frame in frames:
            self.before_field(frame.name)
            yield Reading(frame.name, True, (), False, 1.0, Scale(0.1, "red_cells"), (self.cell(),))

    def cell(self) -> CellReading:
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        top = tuple(ChannelRelevance(c, 1.0, (1, 1), np.eye(8, dtype=np.float32)) for c in range(10))
        why = Explanation("lymphocyte", 1.0, top, 0.0, 0.0, np.zeros((32, 32), np.uint8))
        said = Prediction("lymphocyte", 1.0, False, {name: float(name == "lymphocyte") for name in self.classes})
        return CellReading(1, Detection(Box(1, 2, 30, 30), False, 1.0), said, why, True, noise)


@pytest.fixture
def made_up(tmp_path: Path, dark: Write, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    fake = MadeUp(tmp_path / "made up", dark)
    monkeypatch.setattr(runner, "observe", fake.observe)
    return fake


def request(source: Path, session: Path, *, resume: bool = False, target: int | None = None) -> runner.RunRequest:
    return runner.RunRequest(source, None if resume else session, session if resume else None, None, target, CHOICE)


class Heard(list[str]):
    """What a run said, and which fields it showed."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []

    def show(self, reading: Reading, done: int, total: int) -> None:
        self.shown.append((reading.field, done, total))


def test_the_target(made_up: MadeUp, tmp_path: Path) -> None:
    heard = Heard()
    outcome = runner.run(request(made_up.source(5), tmp_path / "s", target=2), heard.show, heard.append)
    assert (outcome.fields, outcome.table.leukocytes, outcome.interrupted) == (2, 2, False)
    assert heard[-1] == "The target of 2 leukocytes is reached."
    heard = Heard()
    outcome = runner.run(request(made_up.folder, tmp_path / "s", resume=True, target=2), heard.show, heard.append)
    assert (outcome.fields, heard.shown) == (2, [])
    assert heard[-1] == "The session has 2 leukocytes already, as many as --target 2 asks for: nothing is read."
    outcome = runner.run(request(made_up.folder, tmp_path / "s", resume=True, target=3), heard.show, heard.append)
    assert (outcome.fields, heard.shown) == (3, [("02.png", 1, 3)])


def test_a_source_that_changes_while_it_is_read(made_up: MadeUp, tmp_path: Path) -> None:
    """What appears is left to the next call, what vanishes is a failure of its own."""
    source = made_up.source(3)

    def change(name: str) -> None:
        if name == "00.png":
            made_up.dark(source / "00b.png")
            made_up.dark(source / "09.png")

    made_up.before_field = change
    heard = Heard()
    outcome = runner.run(request(source, tmp_path / "s"), heard.show, heard.append)
    assert (outcome.fields, [name for name, _, _ in heard.shown]) == (3, ["00.png", "01.png", "02.png"])
    heard = Heard()
    runner.run(request(source, tmp_path / "s", resume=True), heard.show, heard.append)
    assert heard.shown == [("00b.png", 1, 2), ("09.png", 2, 2)]


def test_a_field_that_vanishes(dark: Write, tmp_path: Path) -> None:
    source = dark(tmp_path / "in" / "a.png").parent
    dark(source / "b.png")
    heard = Heard()

    def show(reading: Reading, done: int, total: int) -> None:
        (source / "b.png").unlink(missing_ok=True)

    outcome = runner.run(request(source, tmp_path / "s"), show, heard.append)
    assert (outcome.fields, outcome.failed) == (2, 1)
    assert heard[-1] == "b.png: no such file; check the path."


def test_stopped_during_a_commit(made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field is there as a whole or not at all, and the session can be written again."""
    from nca_edge.session import store

    insert, calls = store.insert, []

    def stop(*arguments: Any) -> None:
        calls.append(arguments[1])
        if calls == ["field", "cell", "field", "cell"]:
            raise KeyboardInterrupt
        insert(*arguments)

    monkeypatch.setattr(store, "insert", stop)
    heard = Heard()
    outcome = runner.run(request(made_up.source(3), tmp_path / "s"), heard.show, heard.append)
    assert (outcome.interrupted, outcome.fields, outcome.table.leukocytes) == (True, 1, 1)
    outcome = runner.run(request(made_up.folder, tmp_path / "s", resume=True), heard.show, heard.append)
    assert (outcome.interrupted, outcome.fields, outcome.table.leukocytes) == (False, 3, 3)


def test_stopped_while_the_model_is_loaded(dark: Write, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(choice: ModelChoice) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "load", stop)
    done = call("run", dark(tmp_path / "a.png"), "--out", tmp_path / "s")
    assert done == (130, "", "Stopped.\n")
    assert not (tmp_path / "s").exists()


def test_stopped_while_the_report_is_written(dark: Write, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "write_report", stop)
    done = call("run", dark(tmp_path / "a.png"), "--out", tmp_path / "s", "--backend", "onnx")
    assert done.code == 130
    assert done.err.splitlines()[-2:] == [
        f"The report was not written; write it with: nca-edge report {tmp_path / 's'}",
        "Stopped.",
    ]
    assert call("report", tmp_path / "s").code == 0


def test_two_runs_on_one_session(made_up: MadeUp, tmp_path: Path) -> None:
    """The second one is refused with the first one's process id; the first one goes on."""
    source = made_up.source(6)
    runner.run(request(source / "00.png", tmp_path / "s"), Heard().show, Heard().append)
    refused: list[str] = []

    def meanwhile(name: str) -> None:
        with pytest.raises(StorageError) as caught:
            runner.run(request(source, tmp_path / "s", resume=True), Heard().show, Heard().append)
        refused.append(str(caught.value))

    made_up.before_field = meanwhile
    outcome = runner.run(request(source, tmp_path / "s", resume=True), Heard().show, Heard().append)
    assert outcome.table.leukocytes == 6
    said = f"The session {tmp_path / 's'} is in use by process {os.getpid()}: end that one first, or give another folder."
    assert refused == [said] * 5
    assert [field["field"] for field in lines(tmp_path / "s" / "fields.jsonl")] == [f"{n:02}.png" for n in range(6)]


def test_a_session_goes_on_with_the_precision_it_began_with(dark: Write, tmp_path: Path, call: Call) -> None:
    source = dark(tmp_path / "in" / "a.png").parent
    assert call("run", source, "--out", tmp_path / "s", "--backend", "onnx", "--precision", "int8").code == 0
    dark(source / "b.png")
    assert call("run", source, "--session", tmp_path / "s").code == 0
    done = call("run", source, "--session", tmp_path / "s", "--precision", "fp32")
    assert done.code == 2 and "began with precision int8, but this call has precision fp32" in done.err
    assert len(lines(tmp_path / "s" / "fields.jsonl")) == 2


def test_a_signed_session_takes_no_more_fields_and_can_still_be_reported(made_up: MadeUp, tmp_path: Path, call: Call) -> None:
    source = made_up.source(2)
    runner.run(request(source, tmp_path / "s", target=1), Heard().show, Heard().append)
    runner.run(request(source, tmp_path / "s", resume=True, target=2), Heard().show, Heard().append)
    with Session.open(tmp_path / "s") as session:
        assert (session.state, session.slide.target) == (State.REVIEW, 2)
        session.accept([cell.id for cell in session.unreviewed()], "Ada")
        session.sign("Ada")
    assert runner.run(request(source, tmp_path / "s", resume=True), Heard().show, Heard().append).table.leukocytes == 2
    with pytest.raises(UsageError, match="cannot be given more fields, because it is signed"):
        runner.run(request(made_up.source(3), tmp_path / "s", resume=True), Heard().show, Heard().append)


def test_default_folders(dark: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = dark(tmp_path / "slides.2026" / "a.b.png").parent
    for given, expected in ((source, "slides.2026-1"), (source / "a.b.png", "a.b-1"), (source, "slides.2026-2")):
        outcome = runner.run(runner.RunRequest(given, None, None, None, None, CHOICE), Heard().show, Heard().append)
        assert outcome.folder == Path("sessions") / expected


def test_an_empty_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no image"):
        runner.run(request(tmp_path, tmp_path / "s"), Heard().show, Heard().append)
    assert not (tmp_path / "s").exists()


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
