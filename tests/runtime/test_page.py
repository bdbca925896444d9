"""The page as a person uses it, over real requests to a real server."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from html import escape as html_escape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the web extra")
pytest.importorskip("uvicorn", reason="needs the web extra")

from pages import WAIT_S, Browser, copy_of, make_session, served, start

from nca_edge import RESEARCH_USE
from nca_edge.samples import sample_fields
from nca_edge.session import Session, State
from nca_edge.web.pages import PAGE_CELLS

BIDI = "\u202eadmin"
HEBREW = "דָּנָה לוי"
QUOTES = """O'Neill "Bo" <b>&amp; 'x"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three fields; nobody is named as the operator."""
    return make_session(tmp_path_factory.mktemp("page") / "s")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fields ten times over."""
    return make_session(tmp_path_factory.mktemp("many") / "s", 10, "Amina")


def escape(text: str) -> str:
    """As the templates do it."""
    return html_escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def queued(page: Browser) -> str:
    """The cell that the review shows; empty where it is done."""
    found = re.search(r"/picture/([\d-]+)/crop", page.ask("GET", "/queue").text)
    return found[1] if found else ""


def shown(page: Browser, query: str = "") -> list[str]:
    return re.findall(r'data-cell="([\d-]+)"', page.ask("GET", f"/cells{query}").text)


def acceptable(page: Browser, query: str = "") -> list[str]:
    found = re.search(r'data-do="accept" data-json="([^"]*)"', page.ask("GET", f"/cells{query}").text)
    cells: list[str] = json.loads(found[1].replace("&#34;", '"').replace("&quot;", '"'))["cells"] if found else []
    return cells


def review_all(page: Browser) -> None:
    """Name each cell of the queue, then accept page after page."""
    while cell := queued(page):
        assert page.do("reclassify", cell=cell, label="monocyte").status == 200
    while cells := acceptable(page, "?open=1"):
        assert page.do("accept", cells=cells).status == 200


def test_a_session_is_reviewed_and_signed(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder) as page:
        first = queued(page)
        asked = page.do("reclassify", cell=first, label="monocyte")
        assert (asked.status, asked.json["go"]) == (409, "/who")  # nobody has said who reviews
        assert page.do("operator", name="Amina").status == 200
        early = page.do("sign", name="Amina")
        assert early.status == 409 and "Not signed: " in early.json["error"] and "Not yet reviewed" in early.json["error"]
        review_all(page)
        assert page.do("sign", name="Amina").json == {"say": "Signed by Amina", "go": "/sign"}
        assert "Signed by" in page.ask("GET", "/sign").text
        late = page.do("reclassify", cell=first, label="lymphocyte")
        assert late.status == 409 and "signed" in late.json["error"]
        assert page.do("amend", name="Amina", reason="one cell was wrong").status == 200
        assert page.do("reclassify", cell=first, label="lymphocyte").status == 200
        assert page.do("sign", name="Amina").status == 200
    with Session.open(folder, read_only=True) as session:
        assert session.state is State.SIGNED and len(session.signatures()) == 2
        assert {cell.id: cell.human_label for cell in session.cells()}[first] == "lymphocyte"
        assert {cell.reviewed_by for cell in session.cells() if cell.in_scope} == {"Amina"}


def test_a_cell_that_needs_a_look_of_its_own_is_never_accepted_with_others(many: Path) -> None:
    folder = copy_of(many)
    with served("--session", folder) as page:
        with Session.open(folder, read_only=True) as session:
            alone = [queued.cell.id for queued in session.review_queue()]
        cells = acceptable(page, "?open=1")
        assert cells and not set(cells) & set(alone)
        assert page.do("accept", cells=[cells[0], alone[0]]).status == 200
        with Session.open(folder, read_only=True) as session:
            assert [cell.id for cell in session.cells() if cell.reviewed] == [cells[0]]
        assert page.do("accept", cells=[alone[0]]).status == 200  # it was shown alone


def test_a_page_of_the_gallery_holds_24_cells_and_all_pages_hold_each_cell_once(many: Path) -> None:
    folder = copy_of(many)
    with served("--session", folder) as page:
        with Session.open(folder, read_only=True) as session:
            everything = [cell.id for cell in session.cells()]
        pages = -(-len(everything) // PAGE_CELLS)
        seen = [shown(page, f"?page={n}") for n in range(1, pages + 1)]
        assert [len(cells) for cells in seen[:-1]] == [PAGE_CELLS] * (pages - 1)
        assert sorted(cell for cells in seen for cell in cells) == sorted(everything)
        assert shown(page, "?page=999") == seen[-1] and shown(page, "?page=-1") == shown(page, "?page=x") == seen[0]
        assert page.do("accept", cells=everything[: PAGE_CELLS + 1]).status == 409


def test_two_people_review_each_under_her_own_name(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder, "--operator", "Amina") as amina:
        bo = Browser(amina.url, amina.process).enter()
        assert bo.do("operator", name="Bo Ødegård").status == 200
        cells = [queued(amina)]
        assert amina.do("reclassify", cell=cells[0], label="monocyte").status == 200
        cells.append(queued(bo))
        assert bo.do("reclassify", cell=cells[1], label="monocyte").status == 200
        assert "Bo Ødegård" in bo.ask("GET", "/cells").text and "Bo" not in amina.ask("GET", "/cells").text
    with Session.open(folder, read_only=True) as session:
        by = {cell.id: cell.reviewed_by for cell in session.cells()}
        assert [by[cell] for cell in cells] == ["Amina", "Bo Ødegård"]


def test_undo_takes_back_the_last_change_and_then_says_that_there_is_nothing(kept: Path) -> None:
    with served("--session", copy_of(kept), "--operator", "Amina") as page:
        first = queued(page)
        page.do("reclassify", cell=first, label="basophil")
        assert queued(page) != first
        assert page.do("undo").json == {"say": "Undone"} and queued(page) == first
        assert page.do("undo").json == {"error": "There is nothing to undo."}


def test_names_are_kept_and_shown_as_they_were_typed(kept: Path) -> None:
    names = [QUOTES, HEBREW, "  Ana\tMaria\u00a0 da  Silva ", "李" * 200]
    folder = copy_of(kept)
    with served("--session", folder, "--operator", "A") as page:
        review_all(page)
        for name in names:
            assert page.do("sign", name=name).status == 200
            assert escape(" ".join(name.split())) in page.ask("GET", "/sign").text
            assert page.ask("GET", "/report").status == 200
            assert page.do("amend", name="A", reason=name).status == 200
    with Session.open(folder, read_only=True) as session:
        assert [signature.name for signature in session.signatures()] == [" ".join(name.split()) for name in names]


def test_names_that_cannot_be_shown_are_refused_with_one_sentence(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder, "--operator", "A") as page:
        for name in ("", " \t ", BIDI, "a\x00b", "x" * 201, "x" * 10_000):
            answers = [page.do("sign", name=name), page.do("operator", name=name), page.do("abandon", name=name, reason="x")]
            assert [answer.status for answer in answers] == [409] * 3, name
            assert all(0 < len(answer.json["error"]) < 300 for answer in answers)
    with Session.open(folder, read_only=True) as session:
        assert session.state is State.REVIEW


def test_changes_that_the_page_never_makes_are_refused(kept: Path) -> None:
    wrong = ({}, {"cell": 3, "label": None}, {"cell": "000001-001", "label": "unicorn"}, {"cell": "../x", "label": "blast"})
    with served("--session", copy_of(kept), "--operator", "A") as page:
        for values in wrong:
            answer = page.do("reclassify", **values)
            assert answer.status == 409 and answer.json["error"], values
        assert page.do("accept", cells=["000001-001", 3]).status == page.do("live", action="stop").status == 409


def test_a_second_server_is_refused_with_the_first_ones_process(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder) as page:
        second = start("--session", folder)
        out, err = second.communicate(timeout=WAIT_S)
        assert (second.returncode, out) == (1, "") and f"process {page.process.pid}" in err and err.count("\n") == 1


def test_a_read_only_stick_can_be_looked_at_and_not_changed(kept: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=16m")
    folder = disk / "s"
    subprocess.run(["cp", "-r", kept, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with served("--session", folder) as page:
        assert "can be looked at and not changed" in page.ask("GET", "/").text
        assert all(page.ask("GET", path).status == 200 for path in ("/cells", "/queue", "/sign", "/report", "/file/cells.csv"))
        page.do("operator", name="A")
        refused = page.do("reclassify", cell=queued(page), label="monocyte")
        assert refused.status == 409 and "reading" in refused.json["error"]


def test_a_browser_that_goes_away_in_the_middle_harms_nothing(kept: Path) -> None:
    with served("--session", copy_of(kept), "--operator", "A") as page:
        host, port = page.place.split(":")
        for path in ("/events", "/report", "/cells"):
            gone = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
            gone.request("GET", path, headers={"Cookie": page.cookie})
            gone.getresponse().fp.read(1)
            gone.close()
        half = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
        half.putrequest("POST", "/do/sign")
        for name, value in (("Cookie", page.cookie), ("Origin", f"http://{page.place}"), ("X-CSRF-Token", page.csrf)):
            half.putheader(name, value)
        half.putheader("Content-Length", "500")
        half.endheaders(b'{"name": "A')
        half.close()
        assert page.do("reclassify", cell=queued(page), label="monocyte").status == 200


def test_the_server_ends_while_a_page_is_still_listening(kept: Path) -> None:
    with served("--session", copy_of(kept)) as page:
        host, port = page.place.split(":")
        listening = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
        listening.request("GET", "/events", headers={"Cookie": page.cookie})
        assert listening.getresponse().readline() == b"retry: 1000\n"
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(timeout=WAIT_S) == 130
        listening.close()


def test_a_killed_server_comes_back_under_the_same_address_with_everything(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder, "--operator", "Amina") as page:
        first = queued(page)
        assert page.do("reclassify", cell=first, label="basophil").status == 200
        os.kill(page.process.pid, signal.SIGKILL)
        page.process.wait()
    with served("--session", folder) as again:
        assert again.url.partition("token=")[2] == page.url.partition("token=")[2]
        assert queued(again) != first and 'aria-pressed="true"><kbd>6</kbd>' in again.ask("GET", f"/cell/{first}").text


def test_a_new_token_shuts_out_who_had_the_old_one(kept: Path) -> None:
    with served("--session", copy_of(kept)) as first:
        pass
    with served("--session", copy_of(kept), "--new-token") as second:
        cookie = first.cookie.replace(first.place.rpartition(":")[2], second.place.rpartition(":")[2])
        assert second.cookie != cookie and second.ask("GET", "/", cookie=cookie).status == 403


def test_every_language_is_served_and_the_choice_is_kept(kept: Path) -> None:
    with served("--session", copy_of(kept)) as page:
        assert '<html lang="en">' in page.ask("GET", "/").text
        for asked, code in (("fr-CM,fr;q=0.9", "fr"), ("es", "es"), ("pt-BR", "pt"), ("sw", "sw"), ("ja,de", "en")):
            told = page.ask("GET", "/sign", accept_language=asked).text
            assert f'<html lang="{code}">' in told and "⟦" not in told
        chosen = page.do("language", language="sw")
        assert chosen.status == 200 and '<html lang="sw">' in page.ask("GET", "/", accept_language="fr").text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give a camera"),
        (["--session", "nowhere"], "is not a session"),
        (["--session", "s", "--host", "0.0.0.0"], "would listen everywhere"),
        (["--session", "s", "--host", "here"], "give an address of this machine"),
        (["--session", "s", "--host", "192.0.2.1"], "cannot be served"),
        (["--session", "s", "--cert", "c.pem"], "belong together"),
        (["--session", "s", "--language", "xx"], "known are en, fr, es, pt, sw"),
        (["test:", "--camera"], "not both"),
        (["test:", "--session", "s", "--out", "t"], "give one of them"),
        (["--session", "s", "--operator", "x" * 201], "at most 200"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = start(*arguments)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (2, "") and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_a_key_that_is_none_is_one_sentence(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("no key")
    process = start("--session", copy_of(kept), "--cert", tmp_path / "c.pem", "--key", tmp_path / "c.pem")
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2 and "give PEM files" in err and "Traceback" not in err


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


def test_the_research_use_sentence_stands_on_every_page(kept: Path) -> None:
    with served("--session", copy_of(kept)) as page:
        for path in ("/", "/cells", "/queue", "/sign", "/who", "/report", "/cell/000001-001", "/nothing"):
            assert RESEARCH_USE in page.ask("GET", path).text, path


def test_a_folder_of_fields_is_read_and_then_looked_through(tmp_path: Path) -> None:
    (tmp_path / "fields").mkdir()
    shutil.copy(sample_fields() / "bccd-BloodImage_00209.jpg", tmp_path / "fields")
    with served(tmp_path / "fields", "--out", tmp_path / "s", "--operator", "Amina", "--backend", "onnx") as page:
        assert "Research use only" in page.enter().ask("GET", "/").text
    with Session.open(tmp_path / "s", read_only=True) as session:
        assert [f.name for f in session.fields()] == ["bccd-BloodImage_00209.jpg"]
        assert (session.state, session.slide.operator) == (State.REVIEW, "Amina")


def test_a_folder_that_cannot_be_read_is_told_before_the_page_opens(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a")
    done = call("serve", tmp_path, "--out", tmp_path / "s")
    assert (done.code, "holds no image" in done.err, (tmp_path / "s").exists()) == (2, True, False)
    done = call("serve", sample_fields(), "--calibration", "x.json", "--out", tmp_path / "s")
    assert (done.code, "--calibration is for a camera" in done.err) == (2, True)
