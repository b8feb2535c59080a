"""Cuts a recording into episodes: by events of the episode node, by a Bool, or as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pirl_server.interchange.bags.streams import EVENT, Logged, Streams

OUTCOMES = {"success": True, "failure": False}
START, END, LABEL = 1, 2, 3


@dataclass(frozen=True)
class Segment:
    """One episode's part of a recording; times as `Streams` has them, log times beside them."""

    begin_ns: int
    end_ns: int
    log_begin_ns: int
    log_end_ns: int
    name: str
    """for messages"""
    episode_id: str = ""
    instruction: str = ""
    success: bool | None = None
    labelled: bool = False
    """whether `success` was said"""
    discarded: bool = False
    end_reason: str = ""
    """empty: its end was not recorded"""
    next_ns: int = 0
    """log time at which the next episode begins; 0: what is logged after the end is of no episode"""


FOREVER = 2**63 - 1


def segments(streams: Streams) -> list[Segment]:
    """Return the episodes in the order of their beginnings, discarded ones too."""
    logged = streams.texts.get("episodes", [])
    if not logged:
        first = min((int(series.time_ns[0]) for series in streams.numbers.values()), default=0)
        return [Segment(first, streams.end_ns, 0, FOREVER, "whole recording", end_reason="operator")]
    if logged[0].message.__msgtype__ == EVENT:
        found = list(_by_events(logged, streams.end_ns))
        begins = [each.log_begin_ns for each in found[1:]] + [FOREVER]
        return [replace(each, next_ns=next_ns) for each, next_ns in zip(found, begins)]
    return list(_by_flag(logged, streams.end_ns))


def outcomes_of(streams: Streams, segment: Segment) -> list[Any]:
    """Return the step outcomes of an episode, the last of which may be logged after the event that ends it.

    An arm reports steps of an open episode only, on a topic of its own: up to the next beginning they are of this one.
    """
    until_ns = max(segment.log_end_ns, segment.next_ns - 1)
    return [
        each.message for each in streams.texts.get("outcomes", []) if segment.log_begin_ns <= each.log_ns <= until_ns
    ]


def _by_events(logged: list[Logged], end_ns: int) -> Iterator[Segment]:
    labels = {each.message.episode_id: each.message.outcome for each in logged if each.message.event == LABEL}
    running: Segment | None = None
    for each in logged:
        event = each.message
        if event.event == START:
            if running is not None:
                yield _closed(running, each.time_ns, each.log_ns, "", labels)
            name = f"episode {event.episode_id[:8]}"
            running = Segment(each.time_ns, end_ns, each.log_ns, FOREVER, name, event.episode_id, event.instruction)
        elif event.event == END and running is not None:
            ended = replace(running, end_reason=event.reason or "operator")
            yield _closed(ended, each.time_ns, each.log_ns, event.outcome, labels)
            running = None
    if running is not None:
        yield _closed(running, end_ns, FOREVER, "", labels)


def _closed(segment: Segment, end_ns: int, log_end_ns: int, outcome: str, labels: dict[str, str]) -> Segment:
    said = labels.get(segment.episode_id, outcome)
    return replace(
        segment,
        end_ns=end_ns,
        log_end_ns=log_end_ns,
        success=OUTCOMES.get(said),
        labelled=bool(said),
        discarded=said == "discard",
    )


def _by_flag(logged: list[Logged], end_ns: int) -> Iterator[Segment]:
    running: Logged | None = None
    for each in logged:
        if each.message.data and running is None:
            running = each
        elif not each.message.data and running is not None:
            name = f"from {running.time_ns} ns"
            yield Segment(running.time_ns, each.time_ns, running.log_ns, each.log_ns, name, end_reason="operator")
            running = None
    if running is not None:
        yield Segment(running.time_ns, end_ns, running.log_ns, FOREVER, f"from {running.time_ns} ns")
