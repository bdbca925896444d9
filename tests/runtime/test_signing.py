"""Nobody signs what nobody looked at, and what is signed stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sessions import FACTS, ONE, SLIDE, THREE, TWO, cell, counted, field, signed

from nca_edge import differential as differential_module
from nca_edge.errors import UsageError
from nca_edge.session import Session, SlideFacts, State, audit, review, rows

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
