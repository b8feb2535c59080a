"""Session of one robot with the policy server: calls run in one worker thread, failures become a reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pirl_contract import Contract
from pirl_contract.client import EpisodeReceipt, Label, PolicyClient
from pirl_contract.schema import ActionChunk, Alteration, ControlSource, Observation, PreviousChunk, StepOutcome
from pirl_ros.policy_session.inference_scheduler import InferenceScheduler
from pirl_ros.policy_session.rtc import Rebase, RtcTracker

_CHECK_AGAIN_NS = 1_000_000_000
_IDLE_CHECK_NS = 5_000_000_000
"""between looks at a server that agreed, while no episode shows whether it is there"""
_SHOWN, _SHOWN_LENGTH = 3, 120
"""differences of two contracts, and characters of each, that a message names"""
_FAILURES = (ConnectionError, TimeoutError, ValueError)


@dataclass(frozen=True)
class Standing:
    """Where a session stands; `reason` says why no chunk is coming, empty when all is well."""

    phase: str = "unchecked"
    reason: str = "policy server not checked yet"
    policy_name: str = ""
    policy_version: str = ""
    episode_id: str = ""
    instruction: str = ""
    chunks: int = 0
    steps: int = 0
    round_trip_ms: float = 0.0
    failures: int = 0
    """inferences without an answer in this episode"""


@dataclass(eq=False)
class _Episode:
    outcomes: list[StepOutcome] = field(default_factory=list)
    """not yet reported to the server"""


@dataclass(frozen=True)
class _Pending:
    episode: _Episode
    number: int
    observation: Observation
    stamp_ns: int
    received_ns: int
    continuation: PreviousChunk | None


class PolicySession:
    """Checks the contract, runs episodes, asks for chunks. Its methods may be called from any thread; none waits.

    `connect(alias)` makes the client of one served policy; it is called again when an episode asks for another.

    `on_chunk(chunk, stamp_ns, episode_id)` is called from the worker thread for each chunk that is still wanted.
    """

    def __init__(
        self,
        connect: Callable[[str], PolicyClient],
        contract: Contract,
        on_chunk: Callable[[ActionChunk, int, str], None],
        alias: str = "",
        ahead: bool = False,
        sees: bool = False,
        rebase: Rebase | None = None,
    ) -> None:
        """`ahead`: request a chunk before the one being played has ended, with real-time chunking.

        `rebase`: as for `RtcTracker`.

        `sees`: ask while a human drives too, once per execute_horizon: the images of those calls are what a policy that
        sees learns a takeover from. Their chunks are not delivered.
        """
        self._connect, self._contract, self._on_chunk = connect, contract, on_chunk
        self._default_alias = self._alias = alias
        self._client = connect(alias)
        self._worker = ThreadPoolExecutor(1, "policy-client")
        self._lock = threading.RLock()
        self._pacing, self._continuing, self._ahead = InferenceScheduler(ahead), RtcTracker(rebase), ahead
        self._methods: tuple[str, ...] = ()
        self._standing = Standing()
        self._episode: _Episode | None = None
        self._unfit = ""
        self._asked = 0
        self._sees, self._source = sees, ControlSource.POLICY
        self._check_due_ns, self._checking, self._agreed = 0, False, False

    @property
    def standing(self) -> Standing:
        """A snapshot."""
        with self._lock:
            phase = self._pacing.phase if self._agreed else ("blocked" if self._check_due_ns else "unchecked")
            return replace(self._standing, phase=phase, reason=self._standing.reason or self._unfit)

    @property
    def failed(self) -> bool:
        """Whether the newest call to the server was rejected or got no reply, or its contract is another."""
        with self._lock:
            return bool(self._standing.reason) and self._check_due_ns > 0

    def check(self, now_ns: int) -> None:
        """Ask the server what it serves, in the background: until its contract agrees, then between episodes."""
        with self._lock:
            in_episode = self._agreed and self._episode is not None
            if in_episode or self._checking or now_ns < self._check_due_ns:
                return
            self._checking = True
        self._worker.submit(self._check).add_done_callback(_raise)

    def start(self, instruction: str, metadata: Mapping[str, str], alias: str = "") -> Future[str]:
        """Begin an episode; gives its id, or ConnectionError, TimeoutError or ValueError."""
        if self.standing.episode_id:
            raise ValueError(f"episode {self.standing.episode_id} is running: stop it first")
        return self._worker.submit(self._start, instruction, metadata, alias or self._default_alias)

    @property
    def observing(self) -> bool:
        """Whether an observation may be wanted: cheap enough to be asked for each message."""
        with self._lock:
            return self._pacing.phase in ("observing", "playing")

    @property
    def wanting(self) -> bool:
        """Whether an observation is wanted now. A chunk that plays may be lost without a word: `wants` sees to that."""
        with self._lock:
            return self._pacing.phase == "observing"

    def wants(self, stamp_ns: int, now_ns: int, received_ns: int | None = None) -> bool:
        """Whether an observation with this stamp, the first message of which came at `received_ns`, is asked about."""
        with self._lock:
            return self._agreed and self._pacing.wants(stamp_ns, now_ns, received_ns)

    def ask(self, observation: Observation, stamp_ns: int, received_ns: int) -> None:
        """Ask for a chunk in the background, unless the episode ended since `wants` said so.

        `received_ns`: monotonic, when the first message of the observation came.
        """
        with self._lock:
            episode = self._episode
            if episode is None or self._pacing.phase != "observing":
                return
            self._pacing.asked(time.monotonic_ns())
            self._asked += 1
            continuation = self._continuing.from_stamp(stamp_ns, self._methods, observation.state)
            pending = _Pending(episode, self._asked, observation, stamp_ns, received_ns, continuation)
        self._worker.submit(self._infer, pending).add_done_callback(_raise)

    def unfit(self, reason: str) -> None:
        """Say why no observation can be made at present; '' when one can."""
        with self._lock:
            self._unfit = reason

    def report(self, outcome: StepOutcome) -> None:
        """Take in what the arm did with one action."""
        with self._lock:
            if self._episode is None:
                return
            self._episode.outcomes.append(outcome)
            self._standing = replace(self._standing, steps=self._standing.steps + 1)
            self._continuing.report(outcome)
            if self._sees and outcome.source == ControlSource.HUMAN:
                self._pacing.driven(outcome.time_ns, time.monotonic_ns())
                return
            dropped = bool(outcome.alterations & Alteration.STALE)
            self._pacing.played(outcome.chunk_id, outcome.index, outcome.time_ns, dropped, time.monotonic_ns())

    def driven_by(self, source: ControlSource) -> None:
        """Take in who drives the arm. When that is the policy again, it is asked at once about a new observation."""
        with self._lock:
            handed_back = source == ControlSource.POLICY != self._source
            self._source = source
            if handed_back and self._pacing.phase != "idle":
                self._asked += 1  # an answer that is under way is for an observation of before
                self._pacing.begin()
                self._continuing.begin()

    def pause(self) -> None:
        """Ask for nothing more in this episode; outcomes are still taken in."""
        with self._lock:
            self._pacing.end()
            self._continuing.begin()

    def set_timeout(self, timeout_s: float) -> None:
        """Wait this long for the server from the next call on."""
        self._client.timeout_s = timeout_s

    def resume(self) -> None:
        """Ask again, about an observation from now on. ValueError: no episode is running."""
        with self._lock:
            if self._episode is None:
                raise ValueError("no episode is running")
            if self._pacing.phase == "idle":
                self._pacing.begin()

    def stop(self, outcome: Label, label_source: str, reason: str, discard: bool) -> Future[EpisodeReceipt]:
        """End the episode; gives the server's receipt. It ends here even when the server is unreachable.

        ValueError: no episode is running.
        """
        with self._lock:
            episode, self._episode = self._episode, None
            self._pacing.end()
            self._standing = replace(self._standing, episode_id="")
        if episode is None:
            raise ValueError("no episode is running")
        return self._worker.submit(
            lambda: self._client.end_episode(outcome, label_source, reason, discard, tuple(episode.outcomes))
        )

    def label(self, outcome: Label, label_source: str, note: str, episode_id: str) -> Future[Label]:
        """Label a published episode, or take its label back; gives what it was before."""
        return self._worker.submit(lambda: self._client.label_episode(outcome, label_source, note, episode_id))

    def close(self) -> None:
        """Stop asking and close the connection; a call under way is abandoned."""
        self.pause()
        self._client.close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _check(self) -> None:
        try:
            info = self._client.info()
            differences = self._contract.difference(info.contract)
            # A hash over everything: `difference` lists what a person can act on.
            agreed = info.contract.hash == self._contract.hash
            reason = "" if agreed else _mismatch(differences)
            name, version, methods = info.policy_name, info.policy_version, info.continuations
        except _FAILURES as error:
            fix = "; start `pirl serve` there, or give its address (server:=HOST:PORT)"
            reason = f"{error}{fix if isinstance(error, ConnectionError) else ''}"
            agreed, name, version, methods = False, "", "", ()
        with self._lock:
            self._agreed, self._checking = agreed, False
            self._methods = methods if self._ahead else ()
            self._standing = replace(self._standing, reason=reason, policy_name=name, policy_version=version)
            self._check_due_ns = time.monotonic_ns() + (_IDLE_CHECK_NS if agreed else _CHECK_AGAIN_NS)

    def _start(self, instruction: str, metadata: Mapping[str, str], alias: str) -> str:
        if self._episode is not None:
            raise ValueError(f"episode {self.standing.episode_id} is running: stop it first")
        if alias != self._alias:
            self._client.close()
            self._client, self._alias, self._agreed = self._connect(alias), alias, False
        if not self._agreed:
            self._check()
        if not self._agreed:
            raise ValueError(self.standing.reason)
        episode_id = self._client.start_episode(self._contract, instruction, metadata)
        with self._lock:
            self._episode = _Episode()
            self._standing = replace(
                self._standing, episode_id=episode_id, instruction=instruction, chunks=0, steps=0, failures=0, reason=""
            )
            self._pacing.begin()
            self._continuing.begin()
        return episode_id

    def _infer(self, pending: _Pending) -> None:
        episode = pending.episode
        with self._lock:
            outcomes, episode.outcomes = episode.outcomes, []
        began_ns = time.monotonic_ns()
        try:
            chunk = self._client.infer(pending.observation, tuple(outcomes), pending.continuation)
        except _FAILURES as error:
            with self._lock:
                # Not known to have arrived: sent again, the server keeps one per chunk and index.
                episode.outcomes[:0] = outcomes
                self._standing = replace(self._standing, reason=str(error), failures=self._standing.failures + 1)
                if pending.number == self._asked:
                    self._pacing.failed(time.monotonic_ns())
            return
        with self._lock:
            # The episode may be over, or paused and resumed, since this request.
            if self._episode is episode and self._pacing.phase == "inferring" and pending.number == self._asked:
                self._deliver(chunk, pending, began_ns)

    def _deliver(self, chunk: ActionChunk, pending: _Pending, began_ns: int) -> None:
        now_ns = time.monotonic_ns()
        self._pacing.received(chunk, now_ns)
        self._continuing.begin(chunk, pending.observation.state)
        self._continuing.age.add(now_ns - pending.received_ns)
        self._standing = replace(
            self._standing,
            reason="",
            policy_version=chunk.policy_version,
            chunks=self._standing.chunks + 1,
            round_trip_ms=(now_ns - began_ns) / 1e6,
        )
        if not (self._sees and self._source == ControlSource.HUMAN):
            self._on_chunk(chunk, pending.stamp_ns, self._standing.episode_id)


def _mismatch(differences: list[str]) -> str:
    shown = [line if len(line) <= _SHOWN_LENGTH else f"{line[:_SHOWN_LENGTH]}..." for line in differences[:_SHOWN]]
    more = [f"{len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
    return (
        f"contract differs from the server's: {'; '.join(shown + more)}. Start with the profile that the policy was"
        " made for (robot:=NAME, use_cameras:=true or false), or serve a policy made for this robot (alias:=NAME);"
        " `pirl robot check FILE` prints this side's contract"
    )


def _raise(future: Future[None]) -> None:
    """Let an unforeseen error of the worker reach the log instead of vanishing with its future."""
    if not future.cancelled():
        future.result()
