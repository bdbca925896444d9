"""The report: the numbers of the session, nothing loaded, nothing run."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.drawing import map_strip, outline, overlay, shrink
from nca_edge.errors import UsageError
from nca_edge.records import (
    Box,
    CellReading,
    ChannelRelevance,
    Detection,
    Explanation,
    Measures,
    Prediction,
    Reading,
    RunFacts,
    Scale,
)
from nca_edge.report import write_report
from nca_edge.session import Session

EVIL = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>{{ 7*7 }}'
FACTS = RunFacts(
    bundle="tiny",
    bundle_sha256="ab" * 32,
    backend="onnx",
    precision="int8",
    threads=2,
    um_per_px=None,
    classes=("lymphocyte", "neutrophil_segmented", "erythroblast", "artefact"),
    groups={"neutrophil": ("neutrophil_segmented",), "lymphocyte": ("lymphocyte",)},
    model_facts={
        "data": [{"name": "PBC", "licence": "CC BY 4.0", "attribution": "Acevedo et al., https://doi.org/10.1016/x"}],
        "metrics": {"accuracy": {"value": 0.8312, "n": 2731, "interval": [0.8166, 0.8451]}, "confusion": [[5, 1], [0, 7]]},
        "anything <else>": [1, None, True, {"deep": EVIL}],
    },
)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.html = html
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.text = " ".join(self.text.replace("\u202f", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = [tag] if tag in ("style", "title") else []

    def handle_endtag(self, tag: str) -> None:
        self._open = []

    def handle_data(self, data: str) -> None:
        self.text += "" if self._open == ["style"] else f" {data}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def cell(number: int, label: str, confidence: float = 0.9, *, unsure: bool = False, border: bool = False) -> CellReading:
    crop = np.full((300, 300, 3), 230, np.uint8)
    mask = np.zeros((300, 300), np.uint8)
    mask[100:200, 100:200] = 128
    grid = np.arange(256, dtype=np.float32).reshape(16, 16)
    channels = tuple(ChannelRelevance(10 + i, 1.5 - i, (150, 60), grid) for i in range(10))
    return CellReading(
        number,
        Detection(Box(11, 22, 33, 44), border, 1.0),
        Prediction(label, confidence, unsure, {label: confidence}),
        Explanation(label, 1.0, channels, 0.0, 0.0, mask),
        label != "artefact" and not border,
        crop,
    )


def build(folder: Path, facts: RunFacts = FACTS) -> Page:
    with Session.create(folder, facts) as session:
        cells = [
            cell(1, "lymphocyte"),
            cell(2, "neutrophil_segmented", 0.97),
            cell(3, "neutrophil_segmented", 0.4, unsure=True),
        ]
        cells += [cell(4, "erythroblast"), cell(5, "artefact"), cell(6, "lymphocyte", border=True)]
        session.commit(Reading(EVIL, True, (), False, 9.0, Scale(0.1, "red_cells"), tuple(cells)))
        session.commit(Reading("blur.png", False, ("It is out of focus.", "It is too dark."), False, 0.1, None, ()))
        session.commit(Reading("notes.png", False, ("It is no image.",), True, 0.0, None, ()))
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return build(tmp_path_factory.mktemp("report") / "Slide 7")


def test_the_numbers_are_those_of_the_session(page: Page) -> None:
    for line in (
        "3 leukocytes counted, named by the model and not yet confirmed by a person",
        "Neutrophils 1 34 % 0.8–90.6 %",
        "Band neutrophils not reported by this model",
        "Segmented neutrophils 1 34 % 0.8–90.6 %",
        "Lymphocytes 1 33 % 0.8–90.6 %",
        "Monocytes not reported by this model",
        "Unidentified 1 33 % 0.8–90.6 %",
        "All leukocytes 3 100 %",
        "Erythroblasts 1 33.3",
        "Smudge cells not reported by this model",
        "Cut by the edge of a field 1 not counted",
        "Artefacts 1 not counted",
        "Blasts are not reported by this model",
    ):
        assert line in page.text, line


def test_facts_and_fields_that_were_not_used(page: Page) -> None:
    for line in (
        "Slide 7",
        "3 fields (1 rejected, 1 failed)",
        "estimated from the red cells (7.5 µm): 0.100 µm per px (1 field)",
        f"tiny {'ab' * 32}",
        "onnx, int8, 2 threads",
        "licence CC BY 4.0",
        "attribution Acevedo et al., https://doi.org/10.1016/x",
        "accuracy 0.8312 (n 2 731; interval 0.8166–0.8451)",
        "confusion 5, 1, 0, 7",
        "Anything <else> 1, none, yes, deep ",
        "Rejected fields 1 field Field Reason blur.png It is out of focus. It is too dark.",
        "Files that could not be read 1 field Field Reason notes.png It is no image.",
    ):
        assert line in page.text, line


def test_every_cell_is_shown_with_its_reasons(page: Page) -> None:
    assert len(page.all("article")) == 6
    assert page.text.count("ch 10 +1.50 ch 11 +0.50 ch 12 −0.50 ch 13 −1.50 ch 14 −2.50 ") == 6
    assert page.text.count("? unsure") == 1
    assert page.text.count("at the edge not counted") == 1
    assert page.text.count("x 11, y 22, 33 × 44 px") == 6
    # Unsure first, however the session found them.
    assert page.text.index("Segmented neutrophil 40 %") < page.text.index("Segmented neutrophil 97 %")
    assert "Segmented neutrophils 2 cells, 1 unsure" in page.text
    assert "Lymphocytes 2 cells, 1 at the edge" in page.text


@pytest.mark.parametrize(
    "measures, sentence",
    [
        (Measures(118.4, 12.2, 0.9, reason="no nucleus was told apart"), "118 µm², ∅ 12.2 µm, circularity 0.90, no nucleus"),
        (Measures(118.4, 12.2, reason="the mask touches the border"), "118 µm², ∅ 12.2 µm, the mask touches the border"),
        (Measures(reason="nothing is outlined"), " nothing is outlined"),
    ],
)
def test_sizes_are_told_one_after_the_other(tmp_path: Path, measures: Measures, sentence: str) -> None:
    with Session.create(tmp_path / "s", FACTS) as session:
        one = cell(1, "lymphocyte")
        one = replace(one, explanation=replace(one.explanation, measures=measures))
        session.commit(Reading("a.png", True, (), False, 9.0, Scale(0.1, "red_cells"), (one,)))
    text = Page(write_report(tmp_path / "s").read_text("utf-8")).text
    assert sentence in text and f", {sentence.strip()}" not in text


def test_the_research_sentence_is_first_and_on_every_printed_page(page: Page) -> None:
    assert page.text.split("Differential Slide 7", 1)[1].strip().startswith(RESEARCH_USE)
    (style,) = re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert re.search(r"@media print \{.*\.research \{ display: table-header-group", style, re.DOTALL)


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "input"})
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "background")], tag
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), (tag, name)
    style = page.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_content_security_policy_allows_the_file_itself_only(page: Page) -> None:
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    style = page.html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_names_are_text(page: Page) -> None:
    assert "<script" not in page.html
    assert "onerror=alert" in page.text
    assert page.text.count(EVIL) == 7
    assert len([image for image in page.all("img") if not (image["src"] or "").startswith("data:")]) == 0


def test_pictures_are_small(page: Page) -> None:
    images = []
    for attributes in page.all("img"):
        kind, data = (attributes["src"] or "").split(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            images.append((kind, image.size))
    assert images == [
        ("data:image/jpeg", (160, 160)), ("data:image/jpeg", (160, 160)), ("data:image/png", (160, 160)),
        ("data:image/png", (5 * 64 + 4 * 6, 64)),
    ] * 6  # fmt: skip
    assert len(page.html) < 60_000


def test_the_same_session_gives_the_same_report(tmp_path: Path) -> None:
    build(tmp_path / "s")
    before = (tmp_path / "s/report.html").read_bytes()
    assert write_report(tmp_path / "s").read_bytes() == before
    assert not list((tmp_path / "s").glob("*.part"))


def test_lost_pictures_do_not_take_the_report_with_them(tmp_path: Path) -> None:
    build(tmp_path / "s")
    (tmp_path / "s/cells/000001-001.crop.png").unlink()
    (tmp_path / "s/cells/000001-002.mask.png").write_bytes(b"torn")
    page = Page(write_report(tmp_path / "s").read_text("utf-8"))
    assert page.text.count("The pictures of this cell are missing or damaged.") == 2
    assert len(page.all("article")) == 6


def test_a_session_without_cells_has_a_report(tmp_path: Path) -> None:
    with Session.create(tmp_path / "s", FACTS):
        pass
    page = Page(write_report(tmp_path / "s").read_text("utf-8"))
    for line in ("0 leukocytes counted", "No cell was found.", "no field was used", "All leukocytes 0 –"):
        assert line in page.text, line


def test_a_name_that_is_no_unicode_is_shown_escaped(tmp_path: Path) -> None:
    with Session.create(tmp_path / "s", FACTS) as session:
        session.commit(Reading("\udcff.png", False, ("It is dark.",), False, 0.0, None, ()))
    assert "\\udcff.png" in write_report(tmp_path / "s").read_text("utf-8")


def test_what_is_no_session_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a session"):
        write_report(tmp_path)


def test_the_outline_is_drawn_around_and_inside() -> None:
    crop = np.full((9, 9, 3), 50, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 128
    mask[4, 4] = 255
    drawn = overlay(crop, mask)
    yellow, black, blue, plain = (240, 228, 66), (0, 0, 0), (86, 180, 233), (50, 50, 50)
    assert [tuple(pixel) for pixel in drawn[4]] == [plain, black, yellow, plain, blue, plain, yellow, black, plain]
    assert (crop == 50).all()
    alone = np.asarray(outline(mask).convert("RGBA"))
    assert (alone[..., 3] > 0).tolist() == (drawn != 50).any(axis=2).tolist()
    assert tuple(alone[4, 2]) == (*yellow, 255)


def test_an_outline_stops_at_the_edge() -> None:
    full = np.full((4, 4), 128, np.uint8)
    assert (overlay(np.full((4, 4, 3), 7, np.uint8), full) == 7).all()


def test_maps_run_from_dark_blue_to_yellow_with_a_ring_at_the_peak() -> None:
    values = np.zeros((2, 4, 4), np.uint8)
    values[1] = 255
    strip = np.asarray(map_strip(values, [(0.5, 0.5), (0.0, 0.0)]).convert("RGB"))
    assert strip.shape == (64, 134, 3)
    assert tuple(strip[2, 2]) == (0, 34, 78)
    assert tuple(strip[60, 130]) == (254, 232, 56)
    assert tuple(strip[0, 66]) == (255, 255, 255)
    assert (tuple(strip[32, 26]), tuple(strip[32, 24])) == ((255, 255, 255), (0, 0, 0))


def test_shrinking_keeps_shape_and_mask_values() -> None:
    mask = np.array([[0, 128], [255, 0]], np.uint8).repeat(200, axis=0).repeat(100, axis=1)
    small = shrink(mask, 160, smooth=False)
    assert small.shape == (160, 80)
    assert set(np.unique(small)) == {0, 128, 255}
    assert shrink(np.zeros((10, 20, 3), np.uint8), 160).shape == (10, 20, 3)
