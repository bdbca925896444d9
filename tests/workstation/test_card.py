"""The model card: what its files say, the pictures, and refusals."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.bundle import load_bundle
from nca_edge.cli import app
from nca_edge.errors import StorageError, UsageError
from nca_edge.labelled import half, read_labelled
from nca_edge.trust import Trust
from nca_export.bundle import Request, export
from nca_export.card import make_card, write
from nca_export.card_pictures import Mistake, choose, coverage_picture, find_mistakes, sheet
from nca_export.card_source import read_source
from nca_export.card_table import percent, table
from nca_export.card_text import compose, confusions, counted
from tests.workstation.synthetic import ROOT, environment, quiet, write_data, write_manifest

OTHER = {"basophil": "eosinophil", "eosinophil": "basophil"}
SWAPPED = {"basophil": 2, "eosinophil": 1}
"""How many cells of half b bear the other label; the tiny model names all drawn cells rightly."""


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn data with some wrong labels among the cells that are reported on."""
    folder = write_data(tmp_path_factory.mktemp("mislabelled") / "drawn")
    left, rows = dict(SWAPPED), []
    for image in read_labelled(folder):
        label = image.label
        if image.fold == 3 and half(image.file) == "b" and left.get(label, 0):
            left[label] -= 1
            label = OTHER[label]
        rows.append((image.file, label, image.fold or 0))
    write_manifest(folder, rows)
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, mislabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return export(Request(run, mislabelled, tmp_path_factory.mktemp("bundles") / "tiny"), quiet)


@pytest.fixture
def results(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the benchmarks write, in their own words."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    clinics, schedules = importlib.import_module("clinics"), importlib.import_module("schedules")
    of = {"model": "tiny", "manifest_sha256": load_bundle(bundle).sha256}
    confusion = [[8, 2, 0, 0, 0], [0, 4, 0, 0, 0], *[[0] * 5] * 3]
    recall = {"neutrophil": 0.8, "lymphocyte": 1.0, "monocyte": None, "eosinophil": None, "basophil": None}
    clinic = clinics.Result("town", 14, 12 / 14, (0.572, 0.982), recall, confusion, 3)
    steady = schedules.Result("drawn", 0.5, 20, [0.05, 0.1], 0.0625, [0.9, 0.85, 0.95])
    moved = replace(steady, set="town", um_per_px=None)
    folder = tmp_path / "results"
    folder.mkdir()
    _put(folder / "clinics.json", {**of, "groups": clinics.GROUPS, "sets": [asdict(clinic)]})
    _put(folder / "schedules.json", {
        **of, "seeds": [1, 2], "sets": [asdict(steady), asdict(moved)],
        "changed_by_scale": 0.25, "changed_by_scale_interval": [0.0866, 0.491],
    })  # fmt: skip
    _put(folder / "explanations.json", {**of, "fold": "3b", "fp32": TRUST.to_json(), "int8": TRUST.to_json()})
    return folder


RATIOS = {"strongest_first": 0.3, "speaking_first": 0.45, "random": 0.5, "ratio": 0.6, "ratio_speaking_first": 0.9}
TRUST = Trust(
    1000, 1.5, "training cells", RATIOS, {**RATIOS, "ratio": 1.25}, {},
    {"inside": 0.9, "center": 0.8, "mask": 0.25, "n": 990, "no_mask": 4, "large": 6},
    {"rotation": 0.7, "flip": 0.65, "stain": 0.9, "fire": 0.85, "precision": None, "n": 200},
    {"n": 40, "right": 0.75, "others": 960, "others_right": 0.875},
    {
        "looks": 8, "n": 200, "deletion": {**RATIOS, "ratio": 0.55}, "insertion": RATIOS,
        "peaks": {"inside": 0.92, "center": 0.85},
        "overlap": {"rotation": 1.0, "flip": 1.0, "stain": 0.95, "precision": None},
    },
    4.0, 3.5,
)  # fmt: skip


def _put(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), "utf-8")


def _lines(card: str, title: str) -> list[str]:
    """The lines of one section."""
    return card.split(f"## {title}\n\n")[1].split("\n\n## ")[0].splitlines()


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
    home = _lines(card, "Results at home")
    assert home[0].startswith("Half b of fold 3, white cells, n = 6;")
    assert "| Accuracy | 50.0 % (11.8 - 88.2) |" in home
    # three cells of each class, of which two basophils and one eosinophil bear the other's label
    assert "| basophil | 18 | 2 | 50.0 % | 1.3 - 98.7 | 33.3 % |" in home
    assert "| eosinophil | 18 | 4 | 50.0 % | 6.8 - 93.2 | 66.7 % |" in home
    failures = _lines(card, "Known failures")
    assert failures[2:6] == [
        "| Labelled | answered | cells |",
        "| --- | --- | --- |",
        "| eosinophil | basophil | 2 |",
        "| basophil | eosinophil | 1 |",
    ]
    assert failures[-1].startswith("Pictures of mistakes: make this card with `--data`")
    data = _lines(card, "Data")
    assert "| drawn | CC0 | tests |" in data and "- drawn: nobody" in data
    architecture = load_bundle(bundle).manifest.architecture
    assert f"| Parameters | {architecture.parameters:,} |" in _lines(card, "Model")


def test_card_says_what_was_measured_elsewhere(run: Path, bundle: Path, results: Path) -> None:
    card = compose(read_source(bundle, run, results))
    clinics = _lines(card, "Other clinics")
    assert "| all | 85.7 % (57.2 - 98.2), n = 14 |" in clinics
    assert "| neutrophil | 80.0 % (44.4 - 97.5), n = 10 |" in clinics
    assert "| monocyte | no cells |" in clinics
    assert "| called artefact | 21.4 % (4.7 - 50.8), n = 14 |" in clinics
    stability = _lines(card, "Stability")
    steady = "90.0 % (68.3 - 98.8), n = 20 | 85.0 % to 95.0 % | 5.0 % to 10.0 % | 6.2 % |"
    assert f"| drawn | 0.5 um/px | {steady}" in stability
    assert f"| town | estimated | {steady}" in stability
    assert stability[-1].endswith("instead of given, 25.0 % (8.7 - 49.1) of the answers change.")


def test_card_says_how_far_explanations_can_be_trusted(run: Path, bundle: Path, results: Path) -> None:
    section = _lines(compose(read_source(bundle, run, results)), "Explanations")
    assert section[0] == "Half b of fold 3, n = 1,000; changes were tried on 200 of these cells."
    assert "| Insertion: area against random order, strongest channels first | 1.25 | 1.25 |" in section
    assert "| Ten strongest channels that stay under rotation | 70.0 % | 70.0 % |" in section
    assert "| ... between float32 and int8 | - | - |" in section
    assert "| From 8 looks: deletion | 0.55 | 0.55 |" in section
    assert "| From 8 looks: ten strongest channels that stay under rotation | 100.0 % | 100.0 % |" in section
    assert any("1.5 on the mean" in line for line in section)
    assert "mean over training cells" in section[-1] and "were 40 in fp32, 40 in int8" in section[-1]
    (results / "explanations.json").unlink()
    assert "Not measured yet" in _lines(compose(read_source(bundle, run, results)), "Explanations")[0]


def test_card_tells_what_training_cost(run: Path, bundle: Path, results: Path) -> None:
    source = read_source(bundle, run, results)
    minutes = source.facts["training_minutes"]
    cost = _lines(compose(source), "Training cost")
    assert cost[2:] == [f"| this run | tiny | 12 | {minutes:.1f} |", "", cost[-1]]
    assert cost[-1].startswith(f"{minutes:.1f} minutes in all. This run: processes 1, CPU threads of each 1, device cpu, ")
    assert cost[-1].endswith(f"The weights are those of epoch {source.facts['selected']['epoch']}.")
    begun_from = {"recipe": {"name": "first"}, "epochs_done": 7, "training_minutes": 1.5}
    second = compose(replace(source, facts={**source.facts, "begun_from": begun_from, "finished": False}))
    cost = _lines(second, "Training cost")
    assert cost[2] == "| begun from | first | 7 | 1.5 |"
    assert cost[-1].startswith(f"{minutes + 1.5:.1f} minutes in all.")
    assert cost[-1].endswith("It was stopped early: the recipe asks for 12 epochs.")
    again = _lines(second, "How to reproduce")
    assert "nca-edge train first --data DATA --fold 3 --out RUN-INIT" in again
    assert "nca-edge train tiny --data DATA --fold 3 --seed 3 --out RUN --init RUN-INIT --device cpu" in again
    assert "The recipe `tiny` is not among those shipped now: it stands whole in manifest.json" in again[-1]


def test_the_commands_make_the_variants_that_are_there(run: Path, bundle: Path, results: Path) -> None:
    source = read_source(bundle, run, results)
    plain = "nca-edge export RUN --data DATA --out BUNDLE"
    assert plain in _lines(compose(source), "How to reproduce")
    manifest = source.bundle.manifest
    small = tuple(replace(file, precision="int8") if file.precision else file for file in manifest.files)
    other = replace(source.bundle, manifest=replace(manifest, files=small, mask_step=2))
    assert f"{plain} --mask-step 2 --int8" in _lines(compose(replace(source, bundle=other)), "How to reproduce")


def test_a_teacher_of_several_runs_is_paid_and_trained_once(run: Path, bundle: Path, results: Path) -> None:
    source = read_source(bundle, run, results)
    teacher = {"recipe": {"name": "teacher"}, "epochs_done": 3, "training_minutes": 4.0}
    first = {"recipe": {"name": "first"}, "epochs_done": 7, "training_minutes": 1.5, "taught_by": teacher}
    card = compose(replace(source, facts={**source.facts, "begun_from": first, "taught_by": teacher}))
    cost = _lines(card, "Training cost")
    assert cost[2:4] == ["| teacher | teacher | 3 | 4.0 |", "| begun from | first | 7 | 1.5 |"]
    assert cost[-1].startswith(f"{source.facts['training_minutes'] + 5.5:.1f} minutes in all.")
    again = _lines(card, "How to reproduce")
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
        assert _lines(card, title) == [f"Not measured yet: `{by.format(name)}` writes what belongs here."]
    evaluate = "nca-edge evaluate --data DATA --fold 3b --um-per-px 0.5 --model BUNDLE --json > RESULTS/validation.json"
    assert f"As the program reads images: Not measured yet: `{evaluate}` writes what belongs here." in card


def test_mistakes_are_the_cells_that_bear_a_wrong_label(bundle: Path, mislabelled: Path) -> None:
    manifest = load_bundle(bundle).manifest
    told: list[tuple[int, int]] = []
    found = find_mistakes(bundle, mislabelled, manifest.training, lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)]
    assert sorted((m.truth, m.answer) for m in found) == [("basophil", "eosinophil")] + 2 * [("eosinophil", "basophil")]
    assert all(m.file.name.startswith(m.answer) and m.file.is_file() for m in found)  # files are named after what they show
    assert confusions(manifest.metrics["white_cells"]) == [(2, "eosinophil", "basophil"), (1, "basophil", "eosinophil")]


def test_two_of_each_confusion_are_shown_the_most_confident_first() -> None:
    def mistake(name: str, truth: str, answer: str, confidence: float) -> Mistake:
        return Mistake(Path(name), truth, answer, confidence, unsure=False)

    found = [mistake("a", "x", "y", 0.5), mistake("b", "x", "y", 0.9), mistake("c", "x", "y", 0.7), mistake("d", "y", "x", 0.6)]
    assert [m.file.name for m in choose(found, [("y", "x"), ("z", "x"), ("x", "y")])] == ["d", "b", "c"]
    pairs = [(str(n), "x") for n in range(9)]
    assert len(choose([mistake(f"{n}", truth, "x", 0.5) for truth, _ in pairs for n in range(3)], pairs)) == 12


@pytest.mark.parametrize("shown", [1, 5])
def test_attribution_stands_below_all_images(mislabelled: Path, shown: int) -> None:
    image = mislabelled / read_labelled(mislabelled)[0].file
    attribution = "Images: " + "A. Person, " * 30 + "Licence: CC BY 4.0"
    figure = sheet("Half b", [Mistake(image, "basophil", "neutrophil_segmented", 0.914, True)] * shown, attribution)
    figure.draw_without_rendering()
    words = " ".join(next(t for t in figure.texts if t.get_text().startswith("Images")).get_text().split())
    assert words == attribution
    captions = [axes.xaxis.label for axes in figure.axes]
    assert captions[0].get_text() == "labelled: basophil\nanswered: neutrophil segmented\n91.4 % confident (unsure)"
    notice, credit = figure.texts[0], next(t for t in figure.texts if t.get_text().startswith("Images"))
    assert notice.get_text() == RESEARCH_USE
    box = Text.get_window_extent
    assert len(figure.axes) == shown and 0 < box(notice).y0 < box(notice).y1 < box(credit).y0
    assert box(credit).y1 < min(box(caption).y0 for caption in captions)
    assert box(credit).x1 < figure.bbox.x1


def test_coverage_picture_marks_where_the_model_becomes_unsure() -> None:
    white = {"n": 40, "coverage": 0.8, "accuracy_when_sure": 0.95, "accuracy_coverage": [[0.5, 1.0, 0.9], [1.0, 0.875, 0.3]]}
    (axes,) = coverage_picture("Half b", white, 0.62).axes
    assert axes.get_lines()[0].get_xydata().tolist() == [[50, 100], [100, 87.5]]
    assert axes.get_lines()[-1].get_xydata().tolist() == [[80, 95]]
    assert [t.get_text() for t in axes.texts] == ["unsure below 0.62:\n80.0 % answered,\n95.0 % of these right"]
    (axes,) = coverage_picture("Half b", {**white, "coverage": 0.0, "accuracy_when_sure": None}, 1.0).axes
    assert len(axes.get_lines()) == 1 and not axes.texts


def test_figures_as_a_person_reads_them() -> None:
    assert (percent(0.8374), percent(None)) == ("83.7 %", "-")
    assert (counted(0, 0), counted(9, 9)) == ("no cells", "100.0 % (66.4 - 100.0), n = 9")
    assert table(("a|b",), [("c\nd",)]) == "| a\\|b |\n| --- |\n| c\\nd |"


def test_results_of_another_bundle_are_refused(run: Path, bundle: Path, results: Path) -> None:
    clinics = json.loads((results / "clinics.json").read_text("utf-8"))
    _put(results / "clinics.json", {**clinics, "manifest_sha256": "0" * 64})
    with pytest.raises(UsageError, match=r"clinics\.json: was measured with another bundle"):
        read_source(bundle, run, results)
    _put(results / "clinics.json", clinics)
    _put(results / "validation.json", {"model": "another"})
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
    _put(results / "clinics.json", clinics)
    with pytest.raises(UsageError, match=r"clinics\.json is not as this program writes it \(KeyError 'interval'\)"):
        compose(read_source(bundle, run, results))
    with pytest.raises(UsageError, match=r"--results .*nowhere: no such folder"):
        read_source(bundle, run, results / "nowhere")


def test_another_run_or_data_is_refused(run: Path, bundle: Path, results: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the run that"):
        read_source(bundle, tmp_path, results)
    facts = json.loads((run / "run.json").read_text("utf-8"))
    _put(tmp_path / "run.json", {**facts, "seed": 4})
    with pytest.raises(UsageError, match="is not the run that"):
        read_source(bundle, tmp_path, results)
    _put(tmp_path / "run.json", facts)
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
