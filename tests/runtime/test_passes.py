"""Several looks at one cell: turned and mirrored, averaged, and only where the first is not sure."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from done import Done

from nca_edge.automaton import Architecture, draw_fire, pool
from nca_edge.backends import NumpyBackend
from nca_edge.bundle import Manifest
from nca_edge.bundle_writer import Contents, write_bundle
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.explain import Question, head_relevance
from nca_edge.passes import TURNS, turned, turned_back
from nca_edge.records import Image32

ARCHITECTURE = Architecture(6, 2, 14, 5, 4, "max+mean", "half-lattice", 6, 3)
CELLS = 12
TEMPERATURE, BOUND = 8.0, 0.75


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Looks at a cell four times where the first look is less than ``BOUND`` sure."""
    rng = np.random.default_rng(5)
    weights = {name: (rng.standard_normal(shape) * 0.6).astype(np.float32) for name, shape in ARCHITECTURE.shapes().items()}
    manifest = Manifest(
        name="tiny", classes=("monocyte", "basophil", "artefact"),
        groups={"monocyte": ("monocyte",), "basophil": ("basophil",)}, architecture=ARCHITECTURE, view_um=20.0,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), temperature=TEMPERATURE, unsure_below=0.5, seed=7,
        passes=4, more_passes_below=BOUND,
    )  # fmt: skip
    fire = draw_fire(ARCHITECTURE, 7)
    golden = np.zeros((1, 12, 12, 3), np.uint8)
    logits = NumpyBackend(ARCHITECTURE, weights, fire)(golden.astype(np.float32)).logits
    write_bundle(tmp_path / "tiny", Contents(manifest, weights, fire, {"views": golden, "logits": logits}, {}))
    return tmp_path / "tiny"


@pytest.fixture
def classifier(bundle: Path) -> Classifier:
    return load(ModelChoice(str(bundle)))


@pytest.fixture
def views() -> Image32:
    return np.random.default_rng(1).random((CELLS, 12, 12, 3), np.float32)


def test_eight_passes_see_a_cell_eight_ways_and_each_is_turned_back() -> None:
    image = np.arange(2 * 5 * 5 * 3).reshape(2, 5, 5, 3)
    ways = [turned(image, number) for number in range(len(TURNS))]
    assert len({way.tobytes() for way in ways}) == 8
    assert np.array_equal(ways[0], image)
    for number, way in enumerate(ways):
        assert np.array_equal(turned_back(way, number), image)


def test_the_first_four_passes_hold_both_mirror_images_and_every_direction() -> None:
    assert sorted(quarters for quarters, _ in TURNS[:4]) == [0, 1, 2, 3]
    assert [mirrored for _, mirrored in TURNS[:4]].count(True) == 2


def test_only_a_cell_that_the_first_look_leaves_open_is_looked_at_again(classifier: Classifier, views: Image32) -> None:
    looks = classifier.look(views)
    first = classifier.probabilities(classifier.answer(views).logits).max(1)
    passes = [len(seen.each) for seen in looks]
    assert passes == [4 if confidence < BOUND else 1 for confidence in first]
    assert {1, 4} <= set(passes), "the cells of this test must be of both kinds"


def test_the_answer_is_that_of_the_mean_logits(classifier: Classifier, views: Image32) -> None:
    for view, seen in zip(views, classifier.look(views), strict=True):
        each = [classifier.answer(np.asarray(turned(view[None], n), np.float32)).logits[0] for n in range(len(seen.each))]
        np.testing.assert_allclose(seen.each, each, rtol=1e-5, atol=1e-6)
        prediction = classifier.predict(seen)
        expected = classifier.probabilities(np.mean(each, axis=0))
        assert prediction.confidence == pytest.approx(expected.max(), abs=1e-6)
        assert prediction.passes == len(each)
        label = list(prediction.probabilities).index(prediction.label)
        assert prediction.spread == pytest.approx(classifier.probabilities(np.array(each))[:, label].std(), abs=1e-6)


def test_a_cell_gets_the_same_answer_alone_and_in_company(classifier: Classifier, views: Image32) -> None:
    together = classifier.look(views)
    for view, seen in zip(views, together, strict=True):
        (alone,) = classifier.look(view[None])
        np.testing.assert_allclose(alone.each, seen.each, rtol=1e-5, atol=1e-6)


def test_relevance_of_several_passes_adds_up_to_the_mean_logit(classifier: Classifier, views: Image32) -> None:
    looks = [seen for seen in classifier.look(views) if len(seen.each) == 4]
    assert looks
    for seen in looks:
        label = classifier.predict(seen).label
        target = classifier.bundle.manifest.classes.index(label)
        explanation = classifier.explain(seen, np.ones((12, 12, 3), np.float32), Question(label))
        assert explanation.logit == pytest.approx(seen.logits[target], rel=1e-5)
        parts = [head_relevance(pool(state, "max+mean"), classifier.bundle.weights, target, 2) for state in seen.states]
        assert explanation.bias_share == pytest.approx(np.mean([p.bias_share for p in parts]), rel=1e-9)


@pytest.mark.parametrize("passes", [1, 3, 8])
def test_asked_for_every_cell_is_looked_at_as_often(bundle: Path, views: Image32, passes: int) -> None:
    classifier = load(ModelChoice(str(bundle), passes=passes))
    assert {len(seen.each) for seen in classifier.look(views)} == {passes}


def test_masks_of_all_passes_are_compared_only_where_a_number_was_asked_for(bundle: Path, views: Image32) -> None:
    crop = views[0].repeat(4, 0).repeat(4, 1)
    for passes, compared in ((0, False), (1, False), (4, True)):
        classifier = load(ModelChoice(str(bundle), passes=passes))
        (seen,) = classifier.look(views[:1])
        agreement = classifier.explain(seen, crop, Question("monocyte")).mask_agreement
        assert (agreement is not None) == compared
        assert agreement is None or 0 <= agreement <= 1


@pytest.mark.parametrize("passes", [1, 4])
def test_classify_looks_as_often_as_asked(call: Callable[..., Done], crop_files: list[Path], passes: int) -> None:
    done = call("classify", *crop_files, "--passes", passes, "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0 and [row["passes"] for row in rows] == [passes] * len(crop_files)
    assert all((row["spread"] > 0) == (passes > 1) for row in rows)
    assert all((row["mask_agreement"] is not None) == (passes > 1) for row in rows)


def test_a_cell_cannot_be_looked_at_nine_ways(call: Callable[..., Done], crop_files: list[Path]) -> None:
    assert call("classify", crop_files[0], "--passes", 9).code == 2


def test_no_cell_is_no_look(classifier: Classifier) -> None:
    assert classifier.look(np.empty((0, 12, 12, 3), np.float32)) == []
