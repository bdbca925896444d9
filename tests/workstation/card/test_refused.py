"""Results, runs and folders that do not belong to a model card's bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nca_edge.bundle import load_bundle
from nca_edge.errors import StorageError, UsageError
from nca_export.card import make_card, write
from nca_export.card_source import read_source
from nca_export.card_text import compose
from tests.workstation.card.results import put
from tests.workstation.synthetic import write_data


def test_results_of_another_bundle_are_refused(run: Path, bundle: Path, results: Path) -> None:
    clinics = json.loads((results / "clinics.json").read_text("utf-8"))
    put(results / "clinics.json", {**clinics, "manifest_sha256": "0" * 64})
    with pytest.raises(UsageError, match=r"clinics\.json: was measured with another bundle"):
        read_source(bundle, run, results)
    put(results / "clinics.json", clinics)
    put(results / "validation.json", {"model": "another"})
    with pytest.raises(UsageError, match=r"validation\.json: was measured with another bundle"):
        read_source(bundle, run, results)


def test_damaged_results_are_refused(run: Path, bundle: Path, results: Path) -> None:
    for text, reason in (("{", "cannot be read as JSON"), ("[]", "something else than JSON objects")):
        (results / "schedules.json").write_text(text, "utf-8")
        with pytest.raises(UsageError, match=rf"schedules\.json.*{reason}"):
            read_source(bundle, run, results)
    (results / "schedules.json").unlink()
    clinics = json.loads((results / "clinics.json").read_text("utf-8"))
    del clinics["sets"][0]["interval"]
    put(results / "clinics.json", clinics)
    with pytest.raises(UsageError, match=r"clinics\.json is not as this program writes it \(KeyError 'interval'\)"):
        compose(read_source(bundle, run, results))
    with pytest.raises(UsageError, match=r"--results .*nowhere: no such folder"):
        read_source(bundle, run, results / "nowhere")


def test_another_run_or_data_is_refused(run: Path, bundle: Path, results: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the run that"):
        read_source(bundle, tmp_path, results)
    facts = json.loads((run / "run.json").read_text("utf-8"))
    put(tmp_path / "run.json", {**facts, "seed": 4})
    with pytest.raises(UsageError, match="is not the run that"):
        read_source(bundle, tmp_path, results)
    put(tmp_path / "run.json", facts)
    with pytest.raises(UsageError, match=r"metrics\.jsonl: cannot be read"):
        read_source(bundle, tmp_path, results)
    other = write_data(tmp_path / "data", per_class=32)
    with pytest.raises(UsageError, match="half b of fold 3 has 8 white cells, and the model was measured on 6"):
        make_card(bundle, run, results, other, tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_no_part_of_a_bundle_is_overwritten(bundle: Path, tmp_path: Path) -> None:
    parts, whole = {path.name: path.read_bytes() for path in bundle.iterdir()}, load_bundle(bundle)
    for name in ("manifest.json", "model.onnx"):
        with pytest.raises(UsageError, match=f"{name}: is a part of the bundle"):
            write(bundle, whole, {"new.png": b"", name: b""})
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == parts
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another --out"):
        write(tmp_path / "file", whole, {"MODEL_CARD.md": b""})
