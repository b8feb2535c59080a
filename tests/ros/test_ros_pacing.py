"""When the next chunk is asked for."""

from __future__ import annotations

import numpy as np

from pirl_contract import ActionChunk
from pirl_ros.adapters.simulated_arm import RenderDelay
from pirl_ros.policy_session.inference_scheduler import InferenceScheduler

SECOND_NS = 1_000_000_000


def make_chunk() -> ActionChunk:
    return ActionChunk(np.zeros((4, 4), np.float32), 0.05, "c1", "v1", 7, 2)


class TestPacing:
    def playing(self) -> InferenceScheduler:
        pacing = InferenceScheduler()
        pacing.begin()
        pacing.asked()
        pacing.received(make_chunk(), 0)
        return pacing

    def test_idle_until_an_episode_begins(self) -> None:
        pacing = InferenceScheduler()
        assert not pacing.wants(0, 0)
        pacing.begin()
        assert pacing.wants(0, 0)

    def test_asks_about_the_state_after_the_last_action(self) -> None:
        pacing = self.playing()
        pacing.played("c1", 0, 100)
        assert not pacing.wants(100, 0)
        pacing.played("c1", 1, 200)
        assert not pacing.wants(199, 0)
        assert pacing.wants(200, 0)

    def test_outcomes_of_other_chunks_do_not_count(self) -> None:
        pacing = self.playing()
        pacing.played("c0", 1, 200)
        assert not pacing.wants(200, 0)

    def test_while_a_human_drives_it_asks_once_per_chunk_of_steps(self) -> None:
        pacing = self.playing()
        pacing.driven(100)
        assert not pacing.wants(100, 0)
        pacing.driven(200)
        assert pacing.wants(200, 0)
        assert not pacing.wants(199, 0)
        pacing.asked()
        for stamp in (300, 400, 500):
            pacing.driven(stamp)
            assert not pacing.wants(stamp, 0), "a question is under way"
        pacing.received(make_chunk(), 0)
        pacing.driven(600)
        assert pacing.wants(600, 0), "steps count from the request"
        idle = InferenceScheduler()
        idle.driven(100)
        assert not idle.wants(100, 0)

    def test_a_dropped_chunk_is_over_at_once(self) -> None:
        pacing = self.playing()
        pacing.played("c1", 0, 100, dropped=True)
        assert pacing.wants(100, 0)

    def test_a_chunk_whose_end_is_never_reported_is_given_up(self) -> None:
        pacing = self.playing()
        assert not pacing.wants(0, SECOND_NS)
        assert pacing.wants(0, 2 * SECOND_NS)

    def test_an_arm_that_plays_by_time_is_asked_about_what_comes_in_from_then_on(self) -> None:
        """A picture that lay there before the question was due would make the answer older."""
        for ahead in (True, False):
            pacing = InferenceScheduler(ahead)
            pacing.begin()
            assert pacing.wants(0, 10, received_ns=5), "the first question waits for nothing"
            pacing.asked(10)
            pacing.received(make_chunk(), 20)
            pacing.played("c1", 1, 100, now_ns=1000)
            assert pacing.wants(100, 1000, received_ns=999) == (not ahead)
            assert pacing.wants(100, 1000, received_ns=1000)

    def test_the_wait_for_a_picture_counts_as_part_of_the_answer(self) -> None:
        """Else the next chunk would come a picture's period late."""
        chunk = ActionChunk(np.zeros((40, 4), np.float32), 0.05, "c1", "v1", 7, 40)
        lasts = []
        for came_ns in (0, SECOND_NS // 10):
            pacing = InferenceScheduler(True)
            pacing.begin()
            pacing.asked(0)
            pacing.received(chunk, 0)
            pacing.played("c1", 39, 0, now_ns=0)
            assert pacing.wants(0, came_ns, came_ns)
            pacing.asked(came_ns)
            pacing.received(chunk, came_ns)
            lasts.append(next(index for index in range(40) if self.asks_after(pacing, index)))
        assert lasts[1] < lasts[0]

    def asks_after(self, pacing: InferenceScheduler, index: int) -> bool:
        pacing.played("c1", index, 0, now_ns=0)
        return pacing.wants(0, 0, 0)

    def test_after_a_failure_there_is_a_pause(self) -> None:
        pacing = InferenceScheduler()
        pacing.begin()
        pacing.asked()
        pacing.failed(0)
        assert not pacing.wants(0, SECOND_NS // 4)
        assert pacing.wants(0, SECOND_NS)


def test_a_simulator_renders_what_is_asked_about_and_little_else() -> None:
    """Commands follow after 10 ms in a chunk of four, the fourth state waits 40 ms for the policy."""
    delay, rendered = RenderDelay(), []
    for step in range(2000):
        latency_s = 0.04 if step % 4 == 0 else 0.01 + 0.002 * (step % 3)
        rendered.append(latency_s > delay.s)
        delay.commanded(rendered[-1])
    late = np.array(rendered[1000:])
    assert late[::4].all(), "what the policy is asked about is rendered"
    assert late.mean() < 0.35
    for _ in range(1000):
        delay.commanded(True)
    assert delay.s == RenderDelay.MOST_S, "a policy that is asked about every state does not wait for ever"
