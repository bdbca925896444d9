"""What leaves a session: report, tables, FHIR and the outbox say where it stands, with whom, and nothing that is not so."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from done import Done
from sessions import FACTS, ONE, SLIDE, TWO, cell, counted, field, fill, signed

from nca_edge import RESEARCH_USE
from nca_edge.errors import UsageError
from nca_edge.fhir import LOINC, fhir_bundle
from nca_edge.outbox import Outputs, write_outputs
from nca_edge.report import write_report
from nca_edge.session import Session, SlideFacts, audit
from nca_edge.summary import summarize

EVIL = "=1+1\"'><script>alert(1)</script>"


def text(folder: Path) -> str:
    """The words of a report."""
    page = write_report(folder).read_text("utf-8")
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).replace("\u202f", " ").replace("&#8239;", " ").split())


def bundle(folder: Path) -> dict[str, Any]:
    with Session.open(folder, read_only=True) as session:
        parsed: dict[str, Any] = json.loads(fhir_bundle(summarize(session)))
    return parsed


def resources(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in found["entry"] if entry["resource"]["resourceType"] == kind]


# The report


def test_the_report_says_where_the_session_stands(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2, unsure=True)) as session:
        assert "Not signed: 0 of 2 cells reviewed." in text(tmp_path)
        assert "named by the model and not yet confirmed by a person" in text(tmp_path)
        session.accept([ONE], "Ada")
        assert "2 leukocytes counted, 1 of 2 cells looked at by a person" in text(tmp_path)
        session.reclassify(TWO, "monocyte", "Ada")
        signature = session.sign("Ada Lovelace")
        page = text(tmp_path)
        assert f"Signed by Ada Lovelace on {signature.at[:16].replace('T', ' ')} UTC." in page
        assert "2 leukocytes counted, each looked at by a person, and signed" in page
        assert signature.head in page
        session.amend("Bo", "cell 2 again")
        assert "Not signed: opened again by Bo (cell 2 again), 2 of 2 cells reviewed." in text(tmp_path)
        session.sign("Bo")
        assert re.search(r"Signed by Bo on .* UTC, revision 2 \(amended: cell 2 again\)\.", text(tmp_path))


def test_corrected_cells_are_marked_and_stand_with_the_class_that_counts(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2), cell(3)) as session:
        session.reclassify(ONE, "monocyte", "Ada")
        session.accept([TWO], "Ada")
    page = text(tmp_path)
    assert page.count("≠ corrected") + page.count("&ne; corrected") == 1
    assert "the model said lymphocyte, 90 %" in page
    assert "Monocytes 1 cell" in page and "Lymphocytes 2 cells" in page
    assert page.count("✓ reviewed") + page.count("&#10003; reviewed") == 2
    assert "2 of 3 cells reviewed, 1 corrected" in page


def test_flags_stand_on_the_report(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2, "blast")):
        pass
    page = text(tmp_path)
    assert "Look again at the slide: Blast-like cells: 1 Fewer leukocytes than the target: 2 of 100" in page


def test_a_clock_that_was_set_back_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(tmp_path, cell(1)) as session:
        assert "set back" not in text(tmp_path)
        monkeypatch.setattr(audit, "now", lambda: "2016-01-01T00:00:00+00:00")
        session.accept([ONE], "Ada")
        session.sign("Ada")
    assert "The clock of this machine was set back meanwhile" in text(tmp_path)


def test_typed_texts_stay_texts(tmp_path: Path) -> None:
    with Session.create(tmp_path, FACTS, SlideFacts(EVIL, EVIL, EVIL)) as session:
        session.commit(field("a.png", cell(1)))
        session.begin_review(EVIL)
        session.accept([ONE], EVIL)
        session.sign(EVIL)
    write_outputs(tmp_path, Outputs(fhir=True))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    report = resources(bundle(tmp_path), "DiagnosticReport")[0]
    assert report["resultsInterpreter"] == [{"display": EVIL}]
    assert "<script" not in report["text"]["div"]
    for name in ("differential.csv", "cells.csv"):
        for row in csv.reader(io.StringIO((tmp_path / name).read_text("utf-8"), newline="")):
            assert not [value for value in row if value.startswith(("=", "+", "-", "@", "\t", "\r"))]


# Tables


def test_the_differential_as_csv_and_json(tmp_path: Path) -> None:
    with signed(tmp_path, cell(1), cell(2, "monocyte"), cell(3, "neutrophil_segmented"), cell(4, "erythroblast")) as session:
        head = session.head
    assert [path.name for path in write_outputs(tmp_path, Outputs())] == ["report.html"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "differential.csv").read_text("utf-8"), newline="")))
    by_name = {row["name"]: row for row in rows}
    assert (by_name["lymphocyte"]["count"], by_name["lymphocyte"]["percent"], by_name["lymphocyte"]["low"]) == (
        "1",
        "33",
        "0.84",
    )
    assert (by_name["neutrophil_segmented"]["part_of"], by_name["neutrophil_segmented"]["count"]) == ("neutrophil", "1")
    assert (by_name["basophil"]["count"], by_name["basophil"]["percent"]) == ("", "")
    assert (by_name["erythroblast"]["per_100"], by_name["erythroblast"]["percent"]) == ("33.33", "")
    assert {(row["state"], row["signed_by"], row["specimen"], row["notice"]) for row in rows} == {
        ("SIGNED", "Ada Lovelace", "S-17", RESEARCH_USE)
    }
    assert sum(int(row["percent"]) for row in rows if row["percent"] and not row["part_of"]) == 100
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["state"], told["head"], told["leukocytes"], told["notice"]) == ("SIGNED", head, 3, RESEARCH_USE)
    assert told["slide"] == {
        "specimen": "S-17",
        "slide": "2",
        "operator": "Ada",
        "target": 100,
        "calibration": {"um_per_px": 0.1},
    }
    assert [one["name"] for one in told["signatures"]] == ["Ada Lovelace"]
    assert [flag["name"] for flag in told["flags"]] == ["erythroblasts", "below_target"]


def test_what_a_person_said_stands_in_the_list_of_cells(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2)) as session:
        session.reclassify(ONE, "blast", "Ada")
        session.export()
    lines = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert [(line["label"], line.get("human_label"), line.get("reviewed_by")) for line in lines] == [
        ("lymphocyte", "blast", "Ada"), ("lymphocyte", None, None),
    ]  # fmt: skip
    one, two = csv.DictReader(io.StringIO((tmp_path / "cells.csv").read_text("utf-8"), newline=""))
    assert (one["label"], one["human_label"], one["reviewed_by"]) == ("lymphocyte", "blast", "Ada")
    assert (two["human_label"], two["reviewed_by"]) == ("", "")


# FHIR


def test_a_report_is_preliminary_until_it_is_signed(tmp_path: Path) -> None:
    def statuses() -> set[str]:
        found = bundle(tmp_path)
        return {one["status"] for kind in ("DiagnosticReport", "Observation") for one in resources(found, kind)}

    with counted(tmp_path, cell(1)) as session:
        assert statuses() == {"preliminary"}
        session.accept([ONE], "Ada")
        session.sign("Ada")
        assert statuses() == {"final"}
        session.amend("Ada", "why")
        assert statuses() == {"preliminary"}
        session.sign("Ada")
        assert statuses() == {"amended"}
        session.amend("Ada", "wrong slide")
        session.abandon("Ada", "wrong slide")
        assert statuses() == {"entered-in-error"}
    with counted(tmp_path / "b", cell(1)) as session:
        session.abandon("Ada", "broken")
    (report,) = resources(bundle(tmp_path / "b"), "DiagnosticReport")
    assert report["status"] == "cancelled"


def test_observations_carry_the_codes_and_a_class_that_is_not_known_is_never_0(tmp_path: Path) -> None:
    with signed(tmp_path, cell(1), cell(2, "monocyte"), cell(3, "neutrophil_segmented"), cell(4, "erythroblast")):
        pass
    found = bundle(tmp_path)
    by_code = {one["code"]["coding"][0]["code"]: one for one in resources(found, "Observation") if "coding" in one["code"]}
    granulocytes = {LOINC[name] for name in ("promyelocyte", "myelocyte", "metamyelocyte")}  # one row, not reported
    assert set(by_code) == set(LOINC.values()) - granulocytes
    assert by_code["26478-8"]["valueQuantity"] == {
        "value": 33, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%",
    }  # fmt: skip
    assert [part["valueQuantity"]["value"] for part in by_code["26478-8"]["component"]] == [1, 0.84, 90.57]
    assert by_code["26446-5"]["valueQuantity"]["value"] == 0  # blasts, which this model knows
    assert by_code["19048-8"]["valueQuantity"] == {
        "value": 33.33, "unit": "/100 leukocytes", "system": "http://unitsofmeasure.org", "code": "/100{WBCs}",
    }  # fmt: skip
    for code in ("30180-4", "34992-8"):  # basophils and smudge cells, which it does not know
        assert "valueQuantity" not in by_code[code]
        assert by_code[code]["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    (device,) = resources(found, "Device")
    assert {one["type"]["text"]: one["value"] for one in device["version"]} == {
        "software": "0.1.0", "model": "tiny", "model SHA-256": "ab" * 32, "backend": "numpy fp32",
    }  # fmt: skip
    (specimen,) = resources(found, "Specimen")
    assert specimen["accessionIdentifier"] == {"value": "S-17"}
    (report,) = resources(found, "DiagnosticReport")
    assert report["code"]["coding"] == [{"system": "http://loinc.org", "code": "69738-3"}]
    assert RESEARCH_USE in report["conclusion"] and RESEARCH_USE in report["text"]["div"]


def test_every_reference_leads_to_an_entry(tmp_path: Path) -> None:
    with signed(tmp_path):
        pass
    found = bundle(tmp_path)
    urls = [entry["fullUrl"] for entry in found["entry"]]
    assert len(set(urls)) == len(urls) > 12
    pointed = set(re.findall(r'"reference": "([^"]*)"', json.dumps(found)))
    assert pointed <= set(urls) and len(pointed) == len(urls) - 1


def test_an_automated_count_is_not_claimed() -> None:
    assert set(LOINC.values()).isdisjoint({"770-8", "736-9", "5905-5", "713-8", "706-2", "24318-8"})


# The outbox


def test_the_outbox_gets_whole_files_of_one_name_a_result(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    with signed(tmp_path / "s") as session:
        first = write_outputs(tmp_path / "s", Outputs(outbox=outbox))
        before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in outbox.iterdir()}
        assert write_outputs(tmp_path / "s", Outputs(outbox=outbox)) == first
        assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in outbox.iterdir()} == before
        assert sorted(before) == [f"{session.id}-000005-final.csv", f"{session.id}-000005-final.fhir.json"]
        first[1].unlink()  # a laboratory system takes what it has read: delivering again brings the same bytes
        write_outputs(tmp_path / "s", Outputs(outbox=outbox))
        assert {path.name: path.read_bytes() for path in outbox.iterdir()} == {name: one[0] for name, one in before.items()}
        session.amend("Ada", "why")
        session.sign("Ada")
        write_outputs(tmp_path / "s", Outputs(outbox=outbox))
    assert sorted(path.name for path in outbox.iterdir())[2:] == [
        f"{session.id}-000007-amended.csv", f"{session.id}-000007-amended.fhir.json",
    ]  # fmt: skip


def test_the_same_session_gives_the_same_bytes(tmp_path: Path) -> None:
    with signed(tmp_path / "s"):
        pass
    for folder in ("one", "two"):
        write_outputs(tmp_path / "s", Outputs(tmp_path / folder, fhir=True))
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert sorted(one) == [
        "cells.csv", "cells.jsonl", "differential.csv", "fields.jsonl", "report.fhir.json", "report.html", "report.json",
    ]  # fmt: skip


def test_files_of_another_session_are_not_overwritten(tmp_path: Path) -> None:
    with signed(tmp_path / "a"), signed(tmp_path / "b"):
        pass
    with pytest.raises(UsageError, match="holds another session, whose files would be overwritten"):
        write_outputs(tmp_path / "a", Outputs(tmp_path / "b"))
    assert write_outputs(tmp_path / "a", Outputs(tmp_path / "a"))


def test_report_on_the_command_line(tmp_path: Path, call: Callable[..., Done]) -> None:
    with signed(tmp_path / "s"):
        pass
    done = call("report", tmp_path / "s", "--fhir", "--outbox", tmp_path / "outbox", "--out", tmp_path / "o")
    assert (done.code, [Path(line).name for line in done.out.splitlines()][:2]) == (0, ["report.html", "report.fhir.json"])
    assert len(done.out.splitlines()) == 4
    (tmp_path / "flags.toml").write_text('[[flag]]\nname = "m"\ntext = "Any monocyte"\nrows = ["monocyte"]\ncells_above = 0\n')
    assert call("report", tmp_path / "s", "--flags", tmp_path / "flags.toml").code == 0
    assert "Any monocyte: 1" in (tmp_path / "s/report.html").read_text("utf-8")
    assert call("report", tmp_path / "s", "--flags", tmp_path / "none").code == 2


def test_a_session_without_a_cell_has_all_outputs(tmp_path: Path) -> None:
    with Session.create(tmp_path, FACTS) as session:
        write_outputs(tmp_path, Outputs(fhir=True))
        fill(session, 0)
    assert json.loads((tmp_path / "report.json").read_text())["leukocytes"] == 0
    assert "Not signed: no field was read." in text(tmp_path)


def test_the_flags_file_is_part_of_the_package() -> None:
    assert "[[flag]]" in (files("nca_edge") / "flags.toml").read_text("utf-8")
    assert SLIDE.target == 100


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    signed(tmp_path / "s").close()
    (tmp_path / "file").touch()
    for asked in (Outputs(to=tmp_path / "file"), Outputs(outbox=tmp_path / "file")):
        with pytest.raises(UsageError, match=r"^--out.*file: is a file; give a folder\."):
            write_outputs(tmp_path / "s", asked)
