"""A live count knows where it was: no place is read twice, no cell counted twice, also another day."""

from __future__ import annotations

from pathlib import Path

from livecounts import CHOICE, PLACES, Still, all_events, counting

from nca_edge.live import LiveEvent, LiveRequest, begin
from nca_edge.session import Session


def test_a_place_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    back = (PLACES[0], PLACES[1], (PLACES[0][0] + 4, PLACES[0][1] - 4))
    with counting(tmp_path / "s", Still(back)) as live:
        events = all_events(live)
    assert sum(e.kind == "field" for e in events) == 2
    assert "seen" in [e.state for e in events if e.kind == "frame"][-3:]


def test_cells_that_two_fields_share_are_counted_once(tmp_path: Path) -> None:
    with counting(tmp_path / "one", Still(PLACES[:1])) as live:
        all_events(live)
        alone = live.finish().table.leukocytes
    x, y = PLACES[0]
    with counting(tmp_path / "two", Still(((x, y), (x + 40, y)))) as live:
        events = all_events(live)
        assert live.finish().table.leukocytes == alone >= 1
    assert sum(e.kind == "field" for e in events) == 2


def test_undo_takes_the_last_field_back_and_it_can_be_read_again(tmp_path: Path) -> None:
    undone: list[str] = []

    def act(event: LiveEvent) -> None:
        if event.kind == "field" and event.name == "frame-000002":
            live.undo()
        undone.extend([event.name] if event.kind == "undone" else [])

    with counting(tmp_path / "s", Still((*PLACES[:2], PLACES[2], PLACES[1]), 20)) as live:
        events = all_events(live, act)
    assert undone == ["frame-000002"]
    fields = [e for e in events if e.kind == "field"]
    assert len(fields) == 4  # the place that was taken back was read again
    assert events[-1].fields == 3
    with Session.open(tmp_path / "s", read_only=True) as session:
        assert [f.voided for f in session.fields()] == [False, True, False, False]
        assert "voided" in [row.action for row in session.audit_log()]


def test_a_count_that_goes_on_knows_where_it_was(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        all_events(live)
        assert live.earlier == ""
        before = live.finish(interrupted=True).table.leukocytes
    said: list[str] = []
    asked = LiveRequest("test:", None, tmp_path / "s", None, None, CHOICE)
    with begin(asked, said.append, Still((PLACES[1], PLACES[2], PLACES[0]))) as live:
        events = all_events(live)
        after = live.finish().table.leukocytes
    assert [e.name for e in events if e.kind == "field"] == ["frame-000003"]  # the one place that is new
    assert after > before
    assert "The places of 2 earlier fields are known again, as long as the slide lies as it lay." in said


def test_a_count_that_goes_on_says_which_places_it_does_not_know(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        all_events(live)
        live.finish(interrupted=True)
    lines = (tmp_path / "s" / "places.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "s" / "places.jsonl").write_bytes(lines[0] + lines[1][:500])  # as a power cut may leave it
    said: list[str] = []
    asked = LiveRequest("test:", None, tmp_path / "s", None, None, CHOICE)
    with begin(asked, said.append, Still(PLACES[:1])) as live:
        assert not [e for e in all_events(live) if e.kind == "field"]
    assert any(text.startswith("Of 2 earlier fields the places of 1 are known again: go on where nothing") for text in said)


def test_a_place_that_was_taken_back_is_read_again_another_time(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        all_events(live)
        live.finish(interrupted=True)
        live.session.void_field("frame-000001", "Ada")
    asked = LiveRequest("test:", None, tmp_path / "s", None, None, CHOICE)
    with begin(asked, lambda text: None, Still((PLACES[1], PLACES[0]))) as live:
        assert [e.name for e in all_events(live) if e.kind == "field"] == ["frame-000003"]
