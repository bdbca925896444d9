"""A person's word stands beside the model's, and can be taken back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sessions import CLASSES, FACTS, ONE, THREE, TWO, cell, counted, fill, signed

from nca_edge.differential import differential
from nca_edge.session import Session, Verdict, queue

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
