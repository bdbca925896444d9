"""5,000 random steps, legal and illegal, against a plain model of what a session must do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sessions import FACTS, SLIDE, cell, field

from nca_edge.errors import UsageError
from nca_edge.session import Session, SlideFacts, State
from nca_edge.session.verify import verify

NAMES = st.sampled_from(["Ada", "Bo", "Amina Diallo", " ", "", "\t", "x" * 201])
KINDS = st.sampled_from(["sure", "sure", "unsure", "artefact", "border"])
LABELS = st.sampled_from(["monocyte", "blast", "artefact", "lymphocyte", "unidentified", "nonsense"])
REVIEWABLE = (State.COUNTING, State.REVIEW, State.AMENDED)
MEMORY = Path("/dev/shm")


class Counting(RuleBasedStateMachine):
    """A session, and beside it what it should be."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)) / "s"
        self.session = Session.create(self.folder, FACTS, SLIDE)
        self.state = State.OPEN
        self.fields: list[str] = []
        self.kinds: dict[str, str] = {}
        self.verdicts: dict[str, tuple[str, str]] = {}
        self.voided: set[str] = set()
        self.undo_stack: list[Callable[[], None]] = []
        self.signed = 0

    # What should hold

    def field_of(self, name: str) -> str:
        return self.fields[int(name[:6]) - 1]

    def to_review(self) -> set[str]:
        return {name for name, kind in self.kinds.items() if kind != "border" and self.field_of(name) not in self.voided}

    def unidentified(self) -> set[str]:
        return {
            name for name in self.to_review()
            if (self.verdicts[name][0] == "unidentified" if name in self.verdicts else self.kinds[name] == "unsure")
        }  # fmt: skip

    def counted(self) -> set[str]:
        return {
            name for name in self.to_review()
            if (self.verdicts[name][0] != "artefact" if name in self.verdicts else self.kinds[name] != "artefact")
        }  # fmt: skip

    def tried(self, legal: bool, change: Callable[[], object]) -> bool:
        """Do it, and see that it is refused exactly where it should be, and then changes nothing."""
        if legal:
            change()
            return True
        before = self.session.head
        with pytest.raises(UsageError):
            change()
        assert self.session.head == before
        return False

    # What people do

    @rule(kinds=st.lists(KINDS, max_size=3))
    def commit(self, kinds: list[str]) -> None:
        name = f"{len(self.fields)}.png"
        cells = [
            cell(n, "artefact" if kind == "artefact" else "lymphocyte", unsure=kind == "unsure", border=kind == "border")
            for n, kind in enumerate(kinds, start=1)
        ]
        legal = self.state in (State.OPEN, State.COUNTING, State.REVIEW)
        if self.tried(legal, lambda: self.session.commit(field(name, *cells))):
            self.fields.append(name)
            self.kinds |= {f"{len(self.fields):06d}-{n:03d}": kind for n, kind in enumerate(kinds, start=1)}
            self.state = State.COUNTING

    @rule(place=st.integers(0, 40), label=LABELS, by=NAMES)
    def reclassify(self, place: int, label: str, by: str) -> None:
        name = sorted(self.kinds)[place] if place < len(self.kinds) else "000099-001"
        legal = self.state in REVIEWABLE and label != "nonsense" and name in self.kinds and named(by)
        before = self.verdicts.get(name)
        if self.tried(legal, lambda: self.session.reclassify(name, label, by)) and before != (label, by):
            self.verdicts[name] = (label, by)
            self.undo_stack.append(lambda: self.restore({name: before}))

    @rule(data=st.data(), by=NAMES)
    def accept(self, data: st.DataObject, by: str) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.kinds) or ["000099-001"]), unique=True, max_size=6))
        self.accept_these(names, by)

    @rule(by=st.sampled_from(["Ada", ""]))
    def accept_all(self, by: str) -> None:
        self.accept_these(sorted(self.to_review()), by)

    def accept_these(self, names: list[str], by: str) -> None:
        legal = self.state in REVIEWABLE and named(by) and set(names) <= set(self.kinds)
        if self.tried(legal, lambda: self.session.accept(names, by)):
            new = {name: None for name in names if name not in self.verdicts}
            self.verdicts |= {name: ("artefact" if self.kinds[name] == "artefact" else "lymphocyte", by) for name in new}
            if new:
                self.undo_stack.append(lambda: self.restore(new))

    @rule(place=st.integers(0, 20))
    def void(self, place: int) -> None:
        name = self.fields[place] if place < len(self.fields) else "none.png"
        legal = self.state in REVIEWABLE and name in self.fields
        if self.tried(legal, lambda: self.session.void_field(name, "Ada")) and name not in self.voided:
            self.voided.add(name)
            self.undo_stack.append(lambda: self.voided.discard(name))

    @rule(by=NAMES)
    def undo(self, by: str) -> None:
        if self.tried(self.state in REVIEWABLE and named(by), lambda: self.session.undo(by)) and self.undo_stack:
            self.undo_stack.pop()()

    def restore(self, before: dict[str, tuple[str, str] | None]) -> None:
        for name, verdict in before.items():
            self.verdicts.pop(name) if verdict is None else self.verdicts.update({name: verdict})

    @rule()
    def name_all_that_have_no_name(self) -> None:
        for name in sorted(self.unidentified()):
            self.reclassify(sorted(self.kinds).index(name), "monocyte", "Ada")
        self.accept_these(sorted(self.to_review()), "Ada")

    @rule()
    def begin_review(self) -> None:
        if self.tried(self.state in (State.COUNTING, State.REVIEW), lambda: self.session.begin_review("Ada")):
            self.state = State.REVIEW

    @rule(name=NAMES)
    def sign(self, name: str) -> None:
        finished = self.to_review() <= set(self.verdicts) and not self.unidentified() and bool(self.counted())
        legal = self.state in (State.REVIEW, State.AMENDED) and finished and named(name)
        if self.tried(legal, lambda: self.session.sign(name)):
            self.state, self.signed, self.undo_stack = State.SIGNED, self.signed + 1, []

    @rule()
    def go_on_as_one_should(self) -> None:
        """From wherever it is, one stretch of the usual way: by chance alone few sessions come so far."""
        if self.state is State.OPEN:
            self.commit(["sure", "unsure"])
        elif self.state is State.SIGNED:
            self.amend("why", "Ada")
        elif self.state is State.COUNTING:
            self.begin_review()
        elif self.state is not State.ABANDONED:
            self.name_all_that_have_no_name()
            self.sign("Amina Diallo")

    @rule(reason=st.sampled_from(["why", "", " "]), by=NAMES)
    def amend(self, reason: str, by: str) -> None:
        legal = self.state is State.SIGNED and bool(reason.strip()) and named(by)
        if self.tried(legal, lambda: self.session.amend(by, reason)):
            self.state = State.AMENDED

    @rule(draw=st.integers(0, 12))
    def abandon(self, draw: int) -> None:
        reason = "slide broken" if draw == 7 else " "  # seldom: nothing can follow it
        legal = self.state in (State.OPEN, *REVIEWABLE) and bool(reason.strip())
        if self.tried(legal, lambda: self.session.abandon("Ada", reason)):
            self.state = State.ABANDONED

    @rule(specimen=st.sampled_from(["S-1", "S-2"]))
    def describe(self, specimen: str) -> None:
        self.tried(self.state in (State.OPEN, *REVIEWABLE), lambda: self.session.describe(SlideFacts(specimen), "Ada"))

    @rule()
    def close_and_open(self) -> None:
        self.session.close()
        self.session = Session.open(self.folder)

    # What must always be so

    @invariant()
    def it_is_what_it_should_be(self) -> None:
        assert self.session.state is self.state
        cells = {row.id: row for row in self.session.cells()}
        assert set(cells) == set(self.kinds)
        assert {name: (row.human_label, row.reviewed_by) for name, row in cells.items() if row.reviewed} == self.verdicts
        assert {row.id for row in self.session.unreviewed()} == self.to_review() - set(self.verdicts)
        assert {row.id for row in self.session.unidentified()} == self.unidentified()
        assert {row.id for row in cells.values() if row.verdict.counted} == self.counted()
        assert {row.label for row in cells.values()} <= {"lymphocyte", "artefact"}
        assert len(self.session.signatures()) == self.signed
        assert {item.cell.id for item in self.session.review_queue()} <= self.to_review() - set(self.verdicts)

    @invariant()
    def nobody_signs_what_nobody_looked_at(self) -> None:
        if self.session.state is State.SIGNED:
            signature = self.session.signature
            assert signature is not None and signature.name.strip()
            assert self.session.unreviewed() == self.session.unidentified() == ()
            assert any(verdict.counted for verdict in self.session.verdicts())
        else:
            assert self.session.signature is None

    def teardown(self) -> None:
        self.session.close()
        assert verify(self.folder).problems == ()
        shutil.rmtree(self.folder.parent)


def named(by: str) -> bool:
    return 0 < len(by.strip()) <= 200


def test_no_path_leads_to_a_signature_that_is_not_earned() -> None:
    reached: set[State] = set()
    steps = [0]

    class Watched(Counting):
        @invariant()
        def where_it_has_been(self) -> None:
            reached.add(self.state)
            steps[0] += 1

    TestCase = Watched.TestCase
    TestCase.settings = settings(max_examples=130, stateful_step_count=50)
    TestCase().runTest()
    assert reached >= set(State) - {State.ABANDONED}  # which the walk may miss: nothing leads on from it
    assert steps[0] >= 5000
