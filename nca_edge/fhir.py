"""A session as a FHIR R4 Bundle: one DiagnosticReport, the rows of the differential as Observations, specimen and device.

Every id follows from the session's, and every time from its log: the same session at the same moment gives the same bytes, and
a system that has read it once recognises it. A class that the model does not know carries ``dataAbsentReason``, never 0.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from html import escape
from typing import Any

from nca_edge import RESEARCH_USE
from nca_edge.differential import OutsideRow, Row
from nca_edge.session import State
from nca_edge.summary import Summary

LOINC = {
    "neutrophil": "26511-6",
    "neutrophil_segmented": "26505-8",
    "neutrophil_band": "26508-2",
    "lymphocyte": "26478-8",
    "lymphocyte_atypical": "13046-8",
    "monocyte": "26485-3",
    "eosinophil": "26450-7",
    "basophil": "30180-4",
    "blast": "26446-5",
    "promyelocyte": "26524-9",
    "myelocyte": "26498-6",
    "metamyelocyte": "28541-1",
    "smudge_cell": "34992-8",
    "erythroblast": "19048-8",
}
"""Row -> code of its share of leukocytes, method unspecified. The codes of an automated count (770-8, 736-9, ...) mean another
method; a row without a code has its name alone."""
PANEL = "69738-3"
"""Differential panel, method unspecified."""
_LOINC, _UCUM, _HL7 = "http://loinc.org", "http://unitsofmeasure.org", "http://terminology.hl7.org/CodeSystem"
_IDENTIFIERS = "urn:ietf:rfc:3986"


def status(summary: Summary) -> str:
    """Status of the report: ``preliminary`` until it is signed."""
    if summary.state is State.SIGNED:
        return "final" if len(summary.signatures) == 1 else "amended"
    if summary.state is State.ABANDONED:
        return "entered-in-error" if summary.signatures else "cancelled"
    return "preliminary"


def fhir_bundle(summary: Summary) -> bytes:
    """The Bundle as JSON.

    Returns
    -------
    bytes
        ASCII; ``Bundle.type`` is ``collection``.
    """
    observations = list(_observations(summary))
    resources = [_report(summary, [one["id"] for one in observations]), _specimen(summary), _device(summary), *observations]
    bundle = {
        "resourceType": "Bundle",
        "id": _id(summary, "bundle"),
        "identifier": {"system": _IDENTIFIERS, "value": f"urn:uuid:{uuid.UUID(summary.id)}"},
        "type": "collection",
        "timestamp": summary.changed,
        "entry": [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in resources],
    }
    return (json.dumps(bundle, indent=1, allow_nan=False) + "\n").encode("ascii")


def _id(summary: Summary, name: str) -> str:
    return str(uuid.uuid5(uuid.UUID(summary.id), name))


def _reference(summary: Summary, name: str) -> dict[str, str]:
    return {"reference": f"urn:uuid:{_id(summary, name)}"}


def _report(summary: Summary, observations: list[str]) -> dict[str, Any]:
    lines = [summary.table.blast_statement, *(flag.text for flag in summary.flags), summary.standing, RESEARCH_USE]
    shown = "".join(f"<p>{escape(line)}</p>" for line in lines)
    report: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": _id(summary, "report"),
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{shown}</div>'},
        "identifier": [{"system": _IDENTIFIERS, "value": f"urn:uuid:{uuid.UUID(summary.id)}"}],
        "status": status(summary),
        "category": [{"coding": [{"system": f"{_HL7}/v2-0074", "code": "HM"}], "text": "Hematology"}],
        "code": {"coding": [{"system": _LOINC, "code": PANEL}], "text": "Leukocyte differential"},
        "effectiveDateTime": summary.begun,
        "issued": summary.changed,
        "specimen": [_reference(summary, "specimen")],
        "result": [{"reference": f"urn:uuid:{one}"} for one in observations],
        "conclusion": " ".join(lines),
    }
    if summary.slide.operator:
        report["performer"] = [{"display": summary.slide.operator}]
    if summary.signature is not None:
        report["resultsInterpreter"] = [{"display": summary.signature.name}]
    return report


def _specimen(summary: Summary) -> dict[str, Any]:
    specimen: dict[str, Any] = {
        "resourceType": "Specimen",
        "id": _id(summary, "specimen"),
        "type": {"text": "Stained blood smear"},
    }
    if summary.slide.specimen:
        specimen["accessionIdentifier"] = {"value": summary.slide.specimen}
    if summary.slide.slide:
        specimen["container"] = [{"identifier": [{"value": summary.slide.slide}], "type": {"text": "Slide"}}]
    return specimen


def _device(summary: Summary) -> dict[str, Any]:
    facts = summary.facts
    versions = (
        ("software", summary.software), ("model", facts.bundle), ("model SHA-256", facts.bundle_sha256),
        ("backend", f"{facts.backend} {facts.precision}"),
    )  # fmt: skip
    return {
        "resourceType": "Device",
        "id": _id(summary, "device"),
        "deviceName": [{"name": "nca-edge", "type": "model-name"}],
        "type": {"text": "Reader of blood smears by a neural cellular automaton"},
        "version": [{"type": {"text": name}, "value": value} for name, value in versions],
        "note": [{"text": RESEARCH_USE}],
    }


def _observations(summary: Summary) -> Iterator[dict[str, Any]]:
    for row in summary.table.rows:
        for part in (row, *row.parts):
            yield _row(summary, part)
    for beside in summary.table.outside:
        yield _beside(summary, beside)
    counted = _observation(summary, "leukocytes_counted", "Leukocytes counted")
    yield {**counted, "valueQuantity": _quantity(summary.table.leukocytes, "cells", "{cells}")}


def _row(summary: Summary, row: Row) -> dict[str, Any]:
    observation = _observation(summary, row.name, f"{_words(row.name)}, percent of leukocytes")
    if row.count is None or row.percent is None or row.low is None or row.high is None:
        return {**observation, "dataAbsentReason": _absent("not-performed" if row.count is None else "unknown")}
    parts = [("Cells", _quantity(row.count, "cells", "{cells}"))]
    parts += [
        (f"{end} limit of the 95 % interval (Clopper-Pearson)", _quantity(round(value, 2), "%", "%"))
        for end, value in (("Lower", row.low), ("Upper", row.high))
    ]
    observation["component"] = [{"code": {"text": text}, "valueQuantity": value} for text, value in parts]
    return {**observation, "valueQuantity": _quantity(row.percent, "%", "%")}


def _beside(summary: Summary, row: OutsideRow) -> dict[str, Any]:
    observation = _observation(summary, row.name, f"{_words(row.name)} per 100 leukocytes")
    if row.count is None or row.per_100 is None:
        return {**observation, "dataAbsentReason": _absent("not-performed" if row.count is None else "unknown")}
    observation["component"] = [{"code": {"text": "Cells"}, "valueQuantity": _quantity(row.count, "cells", "{cells}")}]
    return {**observation, "valueQuantity": _quantity(round(row.per_100, 2), "/100 leukocytes", "/100{WBCs}")}


def _observation(summary: Summary, name: str, text: str) -> dict[str, Any]:
    code: dict[str, Any] = {"text": text}
    if name in LOINC:
        code["coding"] = [{"system": _LOINC, "code": LOINC[name]}]
    looked = f"{summary.reviewed} of {summary.to_review} cells reviewed by a person"
    return {
        "resourceType": "Observation",
        "id": _id(summary, f"observation {name}"),
        "status": status(summary),
        "category": [{"coding": [{"system": f"{_HL7}/observation-category", "code": "laboratory"}]}],
        "code": code,
        "effectiveDateTime": summary.begun,
        "issued": summary.changed,
        "method": {"text": f"Microscopy of a stained smear, cells named by a model, {looked}"},
        "specimen": _reference(summary, "specimen"),
        "device": _reference(summary, "device"),
    }


def _quantity(value: float, unit: str, code: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": _UCUM, "code": code}


def _absent(reason: str) -> dict[str, Any]:
    text = "Not reported: the model does not know this class" if reason == "not-performed" else "No leukocyte was counted"
    return {"coding": [{"system": f"{_HL7}/data-absent-reason", "code": reason}], "text": text}


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
