"""Where `nca-edge run` reads and writes: good and broken fields, folders, resumed with the same choices or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from done import Call
from fieldruns import CHOICE, Heard, Write, lines, request
from PIL import Image

from nca_edge import runner
from nca_edge.errors import UsageError


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


def test_a_session_goes_on_with_the_precision_it_began_with(dark: Write, tmp_path: Path, call: Call) -> None:
    source = dark(tmp_path / "in" / "a.png").parent
    assert call("run", source, "--out", tmp_path / "s", "--backend", "onnx", "--precision", "int8").code == 0
    dark(source / "b.png")
    assert call("run", source, "--session", tmp_path / "s").code == 0
    done = call("run", source, "--session", tmp_path / "s", "--precision", "fp32")
    assert done.code == 2 and "began with precision int8, but this call has precision fp32" in done.err
    assert len(lines(tmp_path / "s" / "fields.jsonl")) == 2


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
