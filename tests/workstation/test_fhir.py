"""The FHIR Bundle against the published structure definitions of R4 (R4B, in which these resources are the same)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nca_edge.fhir import fhir_bundle
from nca_edge.session import Session, SlideFacts
from nca_edge.summary import summarize
from tests.runtime.sessions import FACTS, SLIDE, cell, counted, field, signed

Bundle = pytest.importorskip("fhir.resources.R4B.bundle", reason="needs fhir.resources").Bundle


def paths(value: Any, place: str = "") -> set[str]:
    """Every place of a JSON value that holds something."""
    if isinstance(value, dict):
        return set().union(*(paths(inner, f"{place}.{key}") for key, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(paths(inner, f"{place}[{number}]") for number, inner in enumerate(value)))
    return {place}


def checked(session: Session) -> dict[str, Any]:
    raw = fhir_bundle(summarize(session))
    parsed = Bundle.model_validate_json(raw)
    found: dict[str, Any] = json.loads(raw)
    # Nothing that the definitions do not know was passed over in silence. (Numbers and times come back written otherwise.)
    assert paths(json.loads(parsed.model_dump_json())) == paths(found)
    return found


def test_bundles_of_every_state_are_valid(tmp_path: Path) -> None:
    with Session.create(tmp_path / "open", FACTS) as session:
        checked(session)
    with counted(tmp_path / "review", cell(1), cell(2, unsure=True), cell(3, "erythroblast"), cell(4, "blast")) as session:
        checked(session)
        session.abandon("Ada", "broken")
        checked(session)
    with signed(tmp_path / "signed") as session:
        checked(session)
        session.amend("Bo", "why")
        checked(session)
        session.sign("Bo")
        found = checked(session)
    report = found["entry"][0]["resource"]
    assert (report["resourceType"], report["status"], report["resultsInterpreter"]) == (
        "DiagnosticReport", "amended", [{"display": "Bo"}],
    )  # fmt: skip


@pytest.mark.parametrize("name", ['Dr "Q" O\'Neil', "د. ليلى أحمد", "<b>&amp;</b>", "n" * 200])
def test_names_do_not_break_it(tmp_path: Path, name: str) -> None:
    with Session.create(tmp_path, FACTS, SlideFacts(name, name, name)) as session:
        session.commit(field("a.png", cell(1)))
        session.begin_review(name)
        session.accept(["000001-001"], name)
        session.sign(name)
        checked(session)
    assert SLIDE.specimen == "S-17"
