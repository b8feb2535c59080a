"""Cuts a recording into episodes: by events of the episode node, by a Bool, or as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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


FOREVER = 2**63 - 1


def segments(streams: Streams) -> list[Segment]:
    """Return the episodes in the order of their beginnings, discarded ones too."""
    logged = streams.texts.get("episodes", [])
    if not logged:
        first = min((int(series.time_ns[0]) for series in streams.numbers.values()), default=0)
        return [Segment(first, streams.end_ns, 0, FOREVER, "whole recording", end_reason="operator")]
    if logged[0].message.__msgtype__ == EVENT:
        return list(_by_events(logged, streams.end_ns))
    return list(_by_flag(logged, streams.end_ns))


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
