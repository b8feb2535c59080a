"""The network client of the robot: a `Policy` over gRPC. numpy, grpcio and protobuf only.

One client serves one robot and one thread at a time; `close` may be called from any. A lost server is a
ConnectionError on each call until it is back: the client never waits longer than `timeout_s` and never sends an
observation twice, which would be old by then. It reconnects by itself, and the episode continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import grpc

from pirl_contract.clock_sync import ClockSync
from pirl_contract.contract import Contract
from pirl_contract.schema import ActionChunk, Observation, PreviousChunk, StepOutcome
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.addresses import target
from pirl_contract.wire.errors import Failures, RefusedError
from pirl_contract.wire.grpc_options import MAX_MESSAGE_BYTES, Tls, bearer, client_options, credentials
from pirl_contract.wire.image_codec import WireImage
from pirl_contract.wire.image_encoder import Encoding
from pirl_contract.wire.request_builder import EpisodeReceipt, Label, Mode, PolicyInfo, RequestBuilder
from pirl_contract.wire.transport import NO_IMAGES, SessionTransport, Transport, UnaryTransport

TransportKind = Literal["session", "unary"]

__all__ = ["MAX_MESSAGE_BYTES", "EpisodeReceipt", "Label", "Mode", "PolicyClient", "PolicyInfo", "Tls", "TransportKind"]


class PolicyClient:
    """Policy over the network. See the module's docstring for threads and failures.

    Raises from every call: ConnectionError (server unreachable or gone), TimeoutError (later than `timeout_s`, or given
    up by the server, which may say when to ask again), ValueError (the server rejected, its reason is the text).
    """

    def __init__(
        self,
        address: str,
        robot_id: str = "robot",
        timeout_s: float = 2.0,
        mode: Mode = "",
        alias: str = "",
        *,
        transport: TransportKind = "session",
        encoding: Encoding = "auto",
        resize_images: bool = False,
        token: str | None = None,
        tls: Tls | None = None,
        on_event: Callable[[pb.ServerEvent], None] | None = None,
        traceparent: Callable[[], str] | None = None,
    ) -> None:
        """`resize_images`: to the contract's sizes, before they travel. `on_event` is called from another thread.
        Without one `infer` raises ValueError after an emergency stop, until `info` is called.

        Raises ValueError for a robot id that no stop could reach (`pirl_contract.names` has the rule), for an address
        that is not host:port (IPv6 in brackets), and for a token that no header can carry. Proxies are not used.
        """
        if transport not in ("session", "unary"):
            raise ValueError(f"transport '{transport}' is not known: use 'session' or 'unary'")
        self._asking = RequestBuilder(robot_id, mode, alias, encoding, resize_images, traceparent)
        self._metadata = bearer(token)
        options = client_options(tls)
        if tls is None:
            self._channel = grpc.insecure_channel(target(address), options=options)
        else:
            self._channel = grpc.secure_channel(target(address), credentials(tls), options=options)
        self._failures = Failures(address)
        self.timeout_s = timeout_s
        """longest wait of each call; may be changed between two"""
        self.retry_after_s = 0.0
        """how long the server asked to wait when it last gave a request up; 0: it did not say"""
        self._carrier: Transport = UnaryTransport(self._channel, self._metadata)
        if transport == "session":
            asking = self._asking
            self._carrier = SessionTransport(
                self._channel, self._metadata, asking.get_info, asking.connected, on_event or asking.obey
            )

    @property
    def clock(self) -> ClockSync:
        """How far the server's clock is from this one's."""
        return self._asking.clock

    def info(self) -> PolicyInfo:
        """Ask what is served; also fixes the contract that later observations are checked against."""
        return self._asking.info(self._call("get_info", self._asking.get_info()))

    def start_episode(self, contract: Contract, instruction: str, metadata: Mapping[str, str] | None = None) -> str:
        """Begin a logged episode and return its id. ValueError when the server's contract differs: it says where."""
        request = self._asking.start_episode(contract, instruction, metadata or {})
        return self._asking.started(contract, self._call("start_episode", request))

    def infer(
        self,
        observation: Observation,
        outcomes: Iterable[StepOutcome] = (),
        continuation: PreviousChunk | None = None,
    ) -> ActionChunk:
        """Return the chunk for this observation; report the outcomes of earlier steps with it.

        With a `continuation` the chunk continues what the robot still plays.
        """
        request, wire_images = self._asking.infer(observation, outcomes, continuation)
        return self._asking.chunk(self._call("infer", request, wire_images))

    def report_outcomes(self, outcomes: Iterable[StepOutcome]) -> int:
        """Report outcomes when no `infer` is due; return how many steps the episode has."""
        steps: int = self._call("report_outcomes", self._asking.report_outcomes(outcomes)).steps
        return steps

    def end_episode(
        self,
        outcome: Label,
        label_source: str,
        end_reason: str,
        discard: bool = False,
        outcomes: Iterable[StepOutcome] = (),
    ) -> EpisodeReceipt:
        """Close the episode: it is published (or dropped) when this returns; when it raises it can be ended again."""
        request = self._asking.end_episode(outcome, label_source, end_reason, discard, outcomes)
        return self._asking.ended(self._call("end_episode", request))

    def label_episode(self, outcome: Label, label_source: str, note: str = "", episode_id: str = "") -> Label:
        """Say how an episode went, the running one or a published one; 'unlabeled' takes it back.

        Returns what the label was before.
        """
        request = self._asking.label_episode(outcome, label_source, note, episode_id)
        return self._asking.labelled(self._call("label_episode", request))

    def reset(self) -> None:
        """Forget the episode; what follows is not logged until `start_episode`."""
        self._asking.reset()

    def close(self) -> None:
        """Close the connection; a call under way is abandoned. Calling it twice changes nothing."""
        self._carrier.close()
        self._channel.close()
        self._asking.close()

    def _call(self, name: str, request: Any, wire_images: Mapping[str, WireImage] = NO_IMAGES) -> Any:
        try:
            return self._carrier.call(name, request, self.timeout_s, wire_images)
        except RefusedError as refused:
            failure = refused
        if failure.code is grpc.StatusCode.UNIMPLEMENTED and isinstance(self._carrier, SessionTransport):
            # a server of wire 1: no session was opened, so nothing was asked yet
            self._carrier = UnaryTransport(self._channel, self._metadata)
            return self._call(name, request, wire_images)
        self.retry_after_s = failure.retry_after_s
        raise self._failures.raised(failure, self.timeout_s)
