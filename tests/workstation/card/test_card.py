"""The model card: what its files say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.bundle import load_bundle
from nca_edge.cli import app
from nca_export.bundle import Request, export
from nca_export.card_source import read_source
from nca_export.card_text import compose
from tests.workstation.card.results import lines
from tests.workstation.synthetic import environment, quiet


def test_command_writes_the_card_beside_the_bundle(
    run: Path, mislabelled: Path, tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = export(Request(run, mislabelled, tmp_path / "tiny"), quiet)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    evaluate = ["evaluate", "--data", str(mislabelled), "--fold", "3b", "--um-per-px", "0.5", "--model", str(own), "--json"]
    app(evaluate, standalone_mode=False)
    (results / "validation.json").write_text(capsys.readouterr().out, "utf-8")
    options = ["--run", str(run), "--results", str(results), "--data", str(mislabelled)]
    command = [sys.executable, "-m", "nca_export.card", str(own), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(own / "MODEL_CARD.md"), "")
    pictures = {"card-confusion.png", "card-coverage.png", "card-mistakes.png"}
    assert {path.name for path in own.iterdir()} == {*before, *pictures, "MODEL_CARD.md"}
    assert {name: (own / name).read_bytes() for name in before} == before
    app(["models", "verify", str(own)], standalone_mode=False)  # a bundle with a card is still a bundle
    card = (own / "MODEL_CARD.md").read_text("utf-8")
    assert card.splitlines()[:3] == ["# Model card: tiny", "", f"**{RESEARCH_USE}**"]
    assert {name for name in pictures if f"]({name})" in card} == pictures
    for name in pictures:
        with Image.open(own / name) as picture:
            assert round(picture.info["dpi"][0]) == 150
    assert "As the program reads images (onnx fp32; scale: given for 6): 50.0 % (11.8 - 88.2), n = 6." in card
    assert str(tmp_path) not in card and str(run) not in card


def test_card_says_what_the_bundle_holds(run: Path, bundle: Path, results: Path) -> None:
    card = compose(read_source(bundle, run, results))
    home = lines(card, "Results at home")
    assert home[0].startswith("Half b of fold 3, white cells, n = 6;")
    assert "| Accuracy | 50.0 % (11.8 - 88.2) |" in home
    # three cells of each class, of which two basophils and one eosinophil bear the other's label
    assert "| basophil | 18 | 2 | 50.0 % | 1.3 - 98.7 | 33.3 % |" in home
    assert "| eosinophil | 18 | 4 | 50.0 % | 6.8 - 93.2 | 66.7 % |" in home
    failures = lines(card, "Known failures")
    assert failures[2:6] == [
        "| Labelled | answered | cells |",
        "| --- | --- | --- |",
        "| eosinophil | basophil | 2 |",
        "| basophil | eosinophil | 1 |",
    ]
    assert failures[-1].startswith("Pictures of mistakes: make this card with `--data`")
    data = lines(card, "Data")
    assert "| drawn | CC0 | tests |" in data and "- drawn: nobody" in data
    architecture = load_bundle(bundle).manifest.architecture
    assert f"| Parameters | {architecture.parameters:,} |" in lines(card, "Model")


def test_card_says_what_was_measured_elsewhere(run: Path, bundle: Path, results: Path) -> None:
    card = compose(read_source(bundle, run, results))
    clinics = lines(card, "Other clinics")
    assert "| all | 85.7 % (57.2 - 98.2), n = 14 |" in clinics
    assert "| neutrophil | 80.0 % (44.4 - 97.5), n = 10 |" in clinics
    assert "| monocyte | no cells |" in clinics
    assert "| called artefact | 21.4 % (4.7 - 50.8), n = 14 |" in clinics
    stability = lines(card, "Stability")
    steady = "90.0 % (68.3 - 98.8), n = 20 | 85.0 % to 95.0 % | 5.0 % to 10.0 % | 6.2 % |"
    assert f"| drawn | 0.5 um/px | {steady}" in stability
    assert f"| town | estimated | {steady}" in stability
    assert stability[-1].endswith("instead of given, 25.0 % (8.7 - 49.1) of the answers change.")


def test_card_says_how_far_explanations_can_be_trusted(run: Path, bundle: Path, results: Path) -> None:
    section = lines(compose(read_source(bundle, run, results)), "Explanations")
    assert section[0] == "Half b of fold 3, n = 1,000; changes were tried on 200 of these cells."
    assert "| Insertion: area against random order, strongest channels first | 1.25 | 1.25 |" in section
    assert "| Ten strongest channels that stay under rotation | 70.0 % | 70.0 % |" in section
    assert "| ... between float32 and int8 | - | - |" in section
    assert "| From 8 looks: deletion | 0.55 | 0.55 |" in section
    assert "| From 8 looks: ten strongest channels that stay under rotation | 100.0 % | 100.0 % |" in section
    assert any("1.5 on the mean" in line for line in section)
    assert "mean over training cells" in section[-1] and "were 40 in fp32, 40 in int8" in section[-1]
    (results / "explanations.json").unlink()
    assert "Not measured yet" in lines(compose(read_source(bundle, run, results)), "Explanations")[0]


def test_card_tells_what_training_cost(run: Path, bundle: Path, results: Path) -> None:
    source = read_source(bundle, run, results)
    minutes = source.facts["training_minutes"]
    cost = lines(compose(source), "Training cost")
    assert cost[2:] == [f"| this run | tiny | 12 | {minutes:.1f} |", "", cost[-1]]
    assert cost[-1].startswith(f"{minutes:.1f} minutes in all. This run: processes 1, CPU threads of each 1, device cpu, ")
    assert cost[-1].endswith(f"The weights are those of epoch {source.facts['selected']['epoch']}.")
    begun_from = {"recipe": {"name": "first"}, "epochs_done": 7, "training_minutes": 1.5}
    second = compose(replace(source, facts={**source.facts, "begun_from": begun_from, "finished": False}))
    cost = lines(second, "Training cost")
    assert cost[2] == "| begun from | first | 7 | 1.5 |"
    assert cost[-1].startswith(f"{minutes + 1.5:.1f} minutes in all.")
    assert cost[-1].endswith("It was stopped early: the recipe asks for 12 epochs.")
    again = lines(second, "How to reproduce")
    assert "nca-edge train first --data DATA --fold 3 --out RUN-INIT" in again
    assert "nca-edge train tiny --data DATA --fold 3 --seed 3 --out RUN --init RUN-INIT --device cpu" in again
    assert "The recipe `tiny` is not among those shipped now: it stands whole in manifest.json" in again[-1]


def test_the_commands_make_the_variants_that_are_there(run: Path, bundle: Path, results: Path) -> None:
    source = read_source(bundle, run, results)
    plain = "nca-edge export RUN --data DATA --out BUNDLE"
    assert plain in lines(compose(source), "How to reproduce")
    manifest = source.bundle.manifest
    small = tuple(replace(file, precision="int8") if file.precision else file for file in manifest.files)
    other = replace(source.bundle, manifest=replace(manifest, files=small, mask_step=2))
    assert f"{plain} --mask-step 2 --int8" in lines(compose(replace(source, bundle=other)), "How to reproduce")


def test_a_teacher_of_several_runs_is_paid_and_trained_once(run: Path, bundle: Path, results: Path) -> None:
    source = read_source(bundle, run, results)
    teacher = {"recipe": {"name": "teacher"}, "epochs_done": 3, "training_minutes": 4.0}
    first = {"recipe": {"name": "first"}, "epochs_done": 7, "training_minutes": 1.5, "taught_by": teacher}
    card = compose(replace(source, facts={**source.facts, "begun_from": first, "taught_by": teacher}))
    cost = lines(card, "Training cost")
    assert cost[2:4] == ["| teacher | teacher | 3 | 4.0 |", "| begun from | first | 7 | 1.5 |"]
    assert cost[-1].startswith(f"{source.facts['training_minutes'] + 5.5:.1f} minutes in all.")
    again = lines(card, "How to reproduce")
    assert again[1:4] == [
        "nca-edge train teacher --data DATA --fold 3 --out RUN-INIT-TEACHER",
        "nca-edge train first --data DATA --fold 3 --out RUN-INIT --teacher RUN-INIT-TEACHER",
        "nca-edge train tiny --data DATA --fold 3 --seed 3 --out RUN --init RUN-INIT --teacher RUN-INIT-TEACHER --device cpu",
    ]


def test_what_was_not_measured_is_left_out_and_says_how(run: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    card = compose(read_source(bundle, run, tmp_path / "none"))
    by = "python tests/benchmarks/{0}.py --data SETS --model BUNDLE --json RESULTS/{0}.json"
    for title, name in (("Other clinics", "clinics"), ("Stability", "schedules")):
        assert lines(card, title) == [f"Not measured yet: `{by.format(name)}` writes what belongs here."]
    evaluate = "nca-edge evaluate --data DATA --fold 3b --um-per-px 0.5 --model BUNDLE --json > RESULTS/validation.json"
    assert f"As the program reads images: Not measured yet: `{evaluate}` writes what belongs here." in card
