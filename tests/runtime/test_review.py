"""A person's word stands beside the model's, can be taken back, and nobody signs what nobody looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sessions import CLASSES, FACTS, SLIDE, cell, counted, field, fill, signed

from nca_edge import differential as differential_module
from nca_edge.differential import differential
from nca_edge.errors import UsageError
from nca_edge.session import Session, SlideFacts, State, Verdict, audit, queue, review, rows

ONE, TWO, THREE = "000001-001", "000001-002", "000001-003"


# What a person says


def test_the_model_s_class_and_the_person_s_are_both_kept(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2)) as session:
        session.reclassify(ONE, "blast", "Ada")
        session.accept([ONE, TWO], "Bo")
        one, two = session.cells()
    assert (one.label, one.human_label, one.reviewed_by, one.corrected) == ("lymphocyte", "blast", "Ada", True)
    assert (two.label, two.human_label, two.reviewed_by, two.corrected) == ("lymphocyte", "lymphocyte", "Bo", False)
    with Session.open(tmp_path) as session:
        assert tuple(session.cells()) == (one, two)


def test_after_review_the_person_s_class_counts(tmp_path: Path) -> None:
    cells = [cell(1), cell(2, "artefact"), cell(3, unsure=True), cell(4), cell(5, border=True), cell(6, "artefact")]
    with counted(tmp_path, *cells) as session:
        for number, label in ((1, "artefact"), (2, "monocyte"), (3, "lymphocyte"), (5, "blast")):
            session.reclassify(f"000001-{number:03d}", label, "Ada")
        verdicts = list(session.verdicts())
        table = differential(session.verdicts(), CLASSES, FACTS.groups)
    assert verdicts == [
        Verdict("artefact", False, False),
        Verdict("monocyte", False, True),
        Verdict("lymphocyte", False, True),
        Verdict("lymphocyte", False, True),
        Verdict("blast", False, False),
        Verdict("artefact", False, False),
    ]
    assert {row.name: row.count for row in table.rows if row.count} == {"lymphocyte": 2, "monocyte": 1}
    assert (table.leukocytes, table.artefacts, table.border) == (3, 2, 1)


def test_a_class_that_the_model_does_not_know_is_reported_once_a_person_named_it(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2)) as session:
        before = differential(session.verdicts(), ("lymphocyte",), {})
        session.reclassify(ONE, "promyelocyte", "Ada")
        after = differential(session.verdicts(), ("lymphocyte",), {})
    assert [row.count for row in before.rows if row.name == "immature_granulocyte"] == [None]
    assert [row.count for row in after.rows if row.name == "immature_granulocyte"] == [1]


def test_accepting_names_the_unsure_and_leaves_what_has_a_name(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1, unsure=True), cell(2)) as session:
        session.reclassify(TWO, "monocyte", "Ada")
        assert session.accept([ONE, TWO], "Ada") == 1
        assert session.accept([ONE, TWO], "Ada") == 0
        assert [row.human_label for row in session.cells()] == ["lymphocyte", "monocyte"]
        assert session.unidentified() == ()


def test_saying_the_same_again_is_no_second_change(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1)) as session:
        session.reclassify(ONE, "blast", "Ada")
        head = session.head
        session.reclassify(ONE, "blast", "Ada")
        assert session.head == head
        session.reclassify(ONE, "blast", "Bo")
        assert session.head != head


def test_a_field_that_is_taken_back_counts_no_more_and_stays(tmp_path: Path) -> None:
    with Session.create(tmp_path, FACTS) as session:
        fill(session, 2)
        session.void_field("lymphocyte-0000.png", "Ada")
        session.void_field("lymphocyte-0000.png", "Ada")
        assert [row.voided for row in session.cells()] == [True, False]
        assert len(list(session.verdicts())) == len(session.unreviewed()) == 1
        assert session.fields_done() == {"lymphocyte-0000.png", "lymphocyte-0001.png"}
        assert [row.action for row in session.audit_log()].count("voided") == 1
        assert session.undo("Ada") == "voided"
        assert len(list(session.verdicts())) == 2


# Undo


def test_undo_goes_back_step_by_step(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2), cell(3)) as session:
        session.accept([ONE, TWO], "Ada")
        session.reclassify(ONE, "monocyte", "Bo")
        session.reclassify(ONE, "blast", "Ada")
        session.reclassify(THREE, "blast", "Ada")
        seen = []
        while session.undo("Ada"):
            seen.append([(row.human_label, row.reviewed_by) for row in session.cells()])
        assert session.undo("Ada") is None
    accepted, none = ("lymphocyte", "Ada"), (None, None)
    assert seen == [
        [("blast", "Ada"), accepted, none],
        [("monocyte", "Bo"), accepted, none],
        [accepted, accepted, none],
        [none, none, none],
    ]


def test_after_an_undo_the_next_change_can_be_undone_too(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2)) as session:
        session.reclassify(ONE, "blast", "Ada")
        session.reclassify(TWO, "blast", "Ada")
        assert session.undo("Ada") == "reclassified"
        session.accept([TWO], "Ada")
        assert [session.undo("Ada") for _ in range(3)] == ["accepted", "reclassified", None]
        assert len(session.unreviewed()) == 2


def test_undo_does_not_reach_behind_a_signature(tmp_path: Path) -> None:
    with signed(tmp_path) as session:
        session.amend("Ada", "a second look")
        assert session.undo("Ada") is None
        session.reclassify(ONE, "blast", "Ada")
        assert [session.undo("Ada"), session.undo("Ada")] == ["reclassified", None]


# The queue


def test_the_queue_shows_suspected_blasts_first_then_the_unsure_then_the_rare_then_a_tenth(tmp_path: Path) -> None:
    cells = [cell(number) for number in range(1, 41)]
    likely_blast = cell(42, "lymphocyte", 0.8)
    likely_blast = replace(
        likely_blast, prediction=replace(likely_blast.prediction, probabilities={"lymphocyte": 0.8, "blast": 0.2})
    )
    cells += [cell(41, unsure=True, confidence=0.5), likely_blast, cell(43, unsure=True, confidence=0.45), cell(44, "monocyte")]
    cells += [cell(45, "blast", 0.6), cell(46, "erythroblast"), cell(47, "blast", border=True), cell(48, "monocyte", 0.7)]
    with counted(tmp_path, *cells) as session:
        found = session.review_queue()
        assert [(item.why, item.cell.cell) for item in found[:7]] == [
            ("blast", 45), ("blast", 42), ("unsure", 43), ("unsure", 41), ("rare", 48), ("rare", 44), ("rare", 46),
        ]  # fmt: skip
        assert [item.why for item in found[7:]] == ["sample"] * 4
        session.accept([found[0].cell.id, found[8].cell.id], "Ada")
        assert session.review_queue() == (*found[1:8], *found[9:])
    with Session.open(tmp_path) as session:
        assert [item.cell.id for item in session.review_queue()] == [item.cell.id for item in (*found[1:8], *found[9:])]


def test_a_cell_that_is_named_for_its_surroundings_is_looked_at(tmp_path: Path) -> None:
    with counted(tmp_path, *(cell(number) for number in range(1, 41))) as session:
        cells = list(session.cells())
    odd = replace(cells[6], measures={"rests_on_background": True, "outside_share": 0.8})
    (first, *rest) = queue.review_queue([*cells[:6], odd, *cells[7:]], "session")
    assert (first.why, first.cell.cell) == ("unsure", 7)
    assert {item.why for item in rest} == {"sample"}


def test_another_session_draws_another_tenth(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        with counted(tmp_path / name, *(cell(number) for number in range(1, 101))) as session:
            drawn.append([item.cell.cell for item in session.review_queue()])
    assert [len(some) for some in drawn] == [10, 10]
    assert drawn[0] != drawn[1]


# States


def test_states_follow_each_other(tmp_path: Path) -> None:
    with Session.create(tmp_path, FACTS) as session:
        seen = [session.state]
        session.commit(field("a.png", cell(1)))
        seen.append(session.state)
        session.begin_review("Ada")
        session.begin_review("Ada")
        seen.append(session.state)
        session.commit(field("b.png", cell(1)))
        seen.append(session.state)
        session.begin_review("Ada")
        session.accept([row.id for row in session.cells()], "Ada")
        session.sign("Ada")
        seen.append(session.state)
        session.amend("Ada", "wrong slide number")
        seen.append(session.state)
        session.sign("Bo")
        seen.append(session.state)
    assert [state.value for state in seen] == ["OPEN", "COUNTING", "REVIEW", "COUNTING", "SIGNED", "AMENDED", "SIGNED"]
    with Session.open(tmp_path) as session:
        assert [(one.name, one.revision, one.reason) for one in session.signatures()] == [
            ("Ada", 1, ""), ("Bo", 2, "wrong slide number"),
        ]  # fmt: skip
        assert session.signature == session.signatures()[-1]


def test_signing_is_refused_with_the_reason(tmp_path: Path) -> None:
    with Session.create(tmp_path, FACTS) as session:
        with pytest.raises(UsageError, match="cannot be signed, because it holds no field yet: count first"):
            session.sign("Ada")
        session.commit(field("a.png", cell(1), cell(2, unsure=True), cell(3, "artefact"), cell(4, border=True)))
        with pytest.raises(UsageError, match="cannot be signed, because its count has not ended: end the count first"):
            session.sign("Ada")
        session.begin_review()
        with pytest.raises(UsageError, match="cannot be signed yet: 3 cells are not reviewed"):
            session.sign("Ada")
        session.accept([ONE, THREE], "Ada")
        with pytest.raises(UsageError, match="cannot be signed yet: 1 cell is not reviewed"):
            session.sign("Ada")
        session.reclassify(TWO, "unidentified", "Ada")
        with pytest.raises(UsageError, match="cannot be signed yet: 1 cell is unidentified"):
            session.sign("Ada")
        session.reclassify(TWO, "monocyte", "Ada")
        with pytest.raises(UsageError, match="Give the name of who signs"):
            session.sign(" \t ")
        assert session.signature is None
        assert session.sign("Ada").revision == 1


def test_a_session_without_a_counted_cell_cannot_be_signed(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1, "artefact")) as session:
        session.accept([ONE], "Ada")
        with pytest.raises(UsageError, match="because no cell is counted: count cells first"):
            session.sign("Ada")


def changes(session: Session) -> list[Callable[[], object]]:
    return [
        lambda: session.commit(field("new.png", cell(1))),
        lambda: session.reclassify(ONE, "blast", "Ada"),
        lambda: session.accept([ONE], "Ada"),
        lambda: session.void_field("a.png", "Ada"),
        lambda: session.undo("Ada"),
        lambda: session.begin_review("Ada"),
        lambda: session.describe(SlideFacts("other"), "Ada"),
        lambda: session.sign("Ada"),
        lambda: session.abandon("Ada", "why"),
    ]


def test_what_is_signed_does_not_change(tmp_path: Path) -> None:
    with signed(tmp_path) as session:
        head = session.head
        for change in changes(session):
            with pytest.raises(UsageError, match="because it is signed: amend it first, with a reason, or begin a new session"):
                change()
        session.commit(field("a.png", cell(1)))  # it holds that field already: reading it again is no change
        assert session.head == head


def test_what_is_abandoned_stays_so(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1)) as session:
        with pytest.raises(UsageError, match="Give the reason for abandoning the session"):
            session.abandon("Ada", "  ")
        session.abandon("Ada", "slide broken")
        for change in (*changes(session), lambda: session.amend("Ada", "why")):
            with pytest.raises(UsageError, match="because it was abandoned: begin a new session"):
                change()
        assert session.audit_log()[-1].payload == {"reason": "slide broken"}


def test_an_amended_session_takes_no_more_fields(tmp_path: Path) -> None:
    with signed(tmp_path) as session:
        with pytest.raises(UsageError, match="Give the reason for amending the session"):
            session.amend("Ada", "")
        session.amend("Ada", "cell 1 again")
        with pytest.raises(UsageError, match="cannot be given more fields, because it was opened again after a signature"):
            session.commit(field("b.png", cell(1)))


# Names and facts of the slide


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ('Dr "Q" O\'Neil', 'Dr "Q" O\'Neil'),
        ("  a\tb\n c ", "a b c"),
        ("د. ليلى أحمد", "د. ليلى أحمد"),
        ("שרה כהן", "שרה כהן"),
        ("Ngũgĩ <b>", "Ngũgĩ <b>"),
        ("n" * 200, "n" * 200),
    ],
)
def test_names_are_kept_as_they_are_written(tmp_path: Path, typed: str, kept: str) -> None:
    with counted(tmp_path, cell(1)) as session:
        session.accept([ONE], typed)
        assert session.sign(typed).name == kept
    with Session.open(tmp_path) as session:
        assert session.signatures()[0].name == kept
        assert [row.reviewed_by for row in session.cells()] == [kept]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("n" * 10_000, "The name of who signs has 10000 characters: give at most 200."),
        ("Ada\x00", "holds the character U+0000, which cannot be shown: leave it out."),
        ("Ada\x1b[31m", "holds the character U+001B"),
        ("Ada \u202eecallaW", "holds the character U+202E"),
        ("Ada \u2066x", "holds the character U+2066"),
        ("\udcff", "holds the character U+DCFF"),
    ],
)
def test_names_that_cannot_be_shown_are_refused(tmp_path: Path, typed: str, sentence: str) -> None:
    with counted(tmp_path, cell(1)) as session:
        session.accept([ONE], "Ada")
        with pytest.raises(UsageError) as caught:
            session.sign(typed)
        assert sentence in str(caught.value)
        assert len(str(caught.value)) < 200
        assert session.state is State.REVIEW


def test_facts_of_the_slide_are_kept_and_can_be_mended(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1)) as session:
        assert session.slide == SLIDE
        session.describe(replace(SLIDE, specimen=" S-18 "), "Bo")
        head = session.head
        session.describe(replace(SLIDE, specimen="S-18"), "Bo")
        assert session.head == head
    with Session.open(tmp_path) as session:
        assert session.slide == SlideFacts("S-18", "2", "Ada", 100, {"um_per_px": 0.1})
        assert session.audit_log()[-1].payload["specimen"] == "S-18"
    with pytest.raises(UsageError, match="A target of 0 cells cannot be counted"):
        Session.create(tmp_path / "b", FACTS, SlideFacts(target=0))
    with pytest.raises(UsageError, match="The specimen has 10000 characters"):
        Session.create(tmp_path / "b", FACTS, SlideFacts(specimen="x" * 10_000))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "cell_id", ["", "1-1", "000001-009", "000009-001", "../../x", "000001-001; DROP", "٠٠٠٠٠١-٠٠١", "1" * 40]
)
def test_cells_and_classes_that_are_not_there_are_refused(tmp_path: Path, cell_id: str) -> None:
    with counted(tmp_path, cell(1)) as session:
        head = session.head
        with pytest.raises(UsageError, match="holds no cell"):
            session.reclassify(cell_id, "blast", "Ada")
        with pytest.raises(UsageError, match="holds no cell"):
            session.accept([ONE, cell_id], "Ada")
        with pytest.raises(UsageError, match="'wrong' is not a class"):
            session.reclassify(ONE, "wrong", "Ada")
        with pytest.raises(UsageError, match="holds no field"):
            session.void_field(cell_id, "Ada")
        assert (session.head, len(session.unreviewed())) == (head, 1)


def test_people_can_use_every_class_of_the_differential() -> None:
    table = differential_module
    members = {name for _, names in (*table._LEUKOCYTES, *table._OUTSIDE) for name in names} | {table.ARTEFACT}
    assert set(review.LABELS) == members - {"lymphocyte_typical", "myeloblast"}
    assert (rows.ARTEFACT, rows.UNIDENTIFIED) == (table.ARTEFACT, table.UNIDENTIFIED)


# Clocks


def test_a_clock_set_back_ten_years_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(tmp_path, cell(1), cell(2)) as session:
        session.reclassify(ONE, "blast", "Ada")
        monkeypatch.setattr(audit, "now", lambda: "2016-01-01T00:00:00+00:00")
        session.reclassify(TWO, "monocyte", "Ada")
        assert session.undo("Ada") == "reclassified"
        assert [row.human_label for row in session.cells()] == ["blast", None]
        session.accept([TWO], "Ada")
        session.sign("Ada")
        session.amend("Ada", "again")
        assert session.sign("Bo").revision == 2
        assert [one.name for one in session.signatures()] == ["Ada", "Bo"]
