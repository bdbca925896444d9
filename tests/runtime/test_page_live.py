"""A count that the page shows while it goes on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the web extra")
pytest.importorskip("uvicorn", reason="needs the web extra")

from pages import Browser, review_all, served

from nca_edge.samples import sample_fields
from nca_edge.session import Session, State

pytestmark = pytest.mark.usefixtures("own_state")


def test_a_live_count_is_shown_paused_ended_and_signed(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    with served("test:?once=1&fps=30", "--out", folder, "--operator", "Amina", "--target", "3") as page:
        assert page.do("live", action="pause").json == {"stay": True}
        assert page.do("live", action="dance").status == 409
        refused = page.do("sign", name="Amina")
        assert refused.status == 409 and "Counting has not ended" in refused.json["error"]
        page.do("live", action="resume")
        wait_for(page, "/sign", "Counting has not ended", gone=True)
        assert page.ask("GET", "/live.jpg").headers["content-type"] == "image/jpeg"
        review_all(page)
        assert page.do("sign", name="Amina").status == 200
    with Session.open(folder, read_only=True) as session:
        assert session.state is State.SIGNED and session.slide.target == 3


def test_after_the_signature_the_next_slide_begins_under_the_same_address(tmp_path: Path) -> None:
    first, second = tmp_path / "monday", tmp_path / "monday-2"
    with served("test:?fps=30", "--out", first, "--operator", "Amina", "--target", "1", "--outbox", tmp_path / "out") as page:
        assert page.do("next", specimen="", slide="").status == 409
        wait_for(page, "/sign", "Counting has not ended", gone=True)
        review_all(page)
        assert page.do("sign", name="Amina").status == 200
        assert page.do("next", specimen="S-8", slide="b").json == {"say": "Saved", "stay": True}
        wait_for(page, "/", "S-8")
        assert page.do("live", action="pause").status == 200
    with Session.open(second, read_only=True) as session:
        assert (session.slide.specimen, session.slide.slide, session.slide.operator) == ("S-8", "b", "Amina")
    assert len(list((tmp_path / "out").glob("*-final.csv"))) == 1 and (first / "report.fhir.json").is_file()


def test_a_killed_count_goes_on_in_its_session_once_somebody_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with served("test:?fps=30", "--operator", "Amina", "--precision", "int8") as page:
        wait_for(page, "/", "Lymphocyte</span>")
        os.kill(page.process.pid, signal.SIGKILL)
        page.process.wait()
    with served("test:?fps=30") as page:  # in the precision that the session began with
        assert "The count was interrupted" in page.ask("GET", "/").text
        assert page.do("live", action="resume").status == 200
        assert "The count was interrupted" not in page.ask("GET", "/").text
    assert [path.name for path in (tmp_path / "sessions").iterdir()] == ["test-1"]


def wait_for(page: Browser, path: str, words: str, gone: bool = False) -> None:
    """Ask until the page says so, or, ``gone``, says it no more; a server that is just beginning anew is waited for."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if (words in page.ask("GET", path).text) is not gone:
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"{path} never said so: {words}")


def test_a_folder_of_fields_is_read_and_then_looked_through(tmp_path: Path) -> None:
    (tmp_path / "fields").mkdir()
    shutil.copy(sample_fields() / "bccd-BloodImage_00209.jpg", tmp_path / "fields")
    with served(tmp_path / "fields", "--out", tmp_path / "s", "--operator", "Amina", "--backend", "onnx") as page:
        assert "Research use only" in page.enter().ask("GET", "/").text
    with Session.open(tmp_path / "s", read_only=True) as session:
        assert [f.name for f in session.fields()] == ["bccd-BloodImage_00209.jpg"]
        assert (session.state, session.slide.operator) == (State.REVIEW, "Amina")
