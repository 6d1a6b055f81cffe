"""What marks say about an event."""

from __future__ import annotations

from tests.chaos.progress import Track, Window


def track(*marks: tuple[float, bool], open: bool = True) -> Track:
    made = Track("app")
    made.marks, made.open = list(marks), open
    return made


WINDOW = Window(10.0, 13.0, 20.0)


def test_a_stall_is_the_longest_gap_that_touches_the_event() -> None:
    said = track((1.0, True), (9.0, False), (9.5, False), (13.5, False), (19.9, False), (20.0, False)).says(WINDOW)
    assert (said["stall"], said["after"], said["first"]) == (6.4, 6.4, 0.5)


def test_of_a_gap_over_the_end_of_the_trouble_only_the_rest_is_after() -> None:
    said = track((9.5, True), (13.5, False), (13.6, False), open=False).says(WINDOW)
    assert (said["stall"], said["after"], said["first"]) == (4.0, 0.5, 0.5)


def test_an_open_flow_that_does_not_go_on_stalls_until_the_end() -> None:
    said = track((9.0, True), (10.5, False)).says(WINDOW)
    assert (said["stall"], said["after"], said["first"]) == (9.5, 7.0, None)


def test_the_time_between_two_flows_is_nobodys_stall() -> None:
    said = track((9.9, True), (10.0, False), (19.9, True)).says(WINDOW)
    assert said["stall"] == 0.1


def test_what_is_lost_counts_for_the_event_in_which_it_was() -> None:
    made = track((9.9, True))
    made.lost += [(5.0, "before"), (11.0, "reset"), (21.0, "later")]
    made.wrong += [(12.0, 100)]
    made.sent += [9.0, 11.0, 12.0]
    made.missing += [11.0]
    said = made.says(WINDOW)
    assert (said["lost"], said["wrong"], said["sent"], said["missing"]) == (["reset"], 100, 2, 1)
