"""The lifecycle of our nodes: create everything in `configure`, work while `active`, destroy it in `cleanup`."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos_overriding_options import InvalidQosOverridesError

from pirl_ros.adapters.qos_mismatch import Misfits

RCLError = rclpy_implementation.RCLError

_WRONG_OVERRIDE = (InvalidQosOverridesError, RuntimeError, TypeError, AttributeError, AssertionError)
"""what rclpy raises for one of another name, type or range"""
_RCLPY_OVERRIDABLE = {"/clock.subscription", "/parameter_events.publisher", "/rosout.publisher"}
"""topics of rclpy's own whose QoS parameters may override"""


class ManagedNode(LifecycleNode):
    """A lifecycle node whose `configure` and `activate` may reject with ValueError: logged in one line, no transition.

    With `use_sim_time` the stamps of what it says about itself are those of /clock; timers and every decision stay on
    the machine's monotonic clock: a simulation that stops must not stop a watchdog.
    """

    moves_an_arm = False
    """whether it must come to rest before any other node of its process ends"""

    def __init__(self, name: str) -> None:
        # The base class creates publishers, too.
        self.misfits = Misfits(self)
        self._overridable = set[str]()
        """TOPIC.publisher or TOPIC.subscription whose QoS parameters may override"""
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self.until_configured = set[str]()
        """names of parameters that can be set only while it is unconfigured"""
        self.add_on_set_parameters_callback(self._on_parameters)
        # rclpy's own lets a request that does not fit the state end the whole process.
        service: Any = self._service_change_state
        service.callback = partial(self._change_state, service.callback)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.active = self.configured = self._finalized = False
        # For callbacks that await: one in the node's own group would keep all others out meanwhile.
        self.awaiting = ReentrantCallbackGroup()
        self._before: tuple[set[Any], ...] = ()

    def create_timer(self, timer_period_sec: float, callback: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Create a timer on the monotonic clock unless another is named."""
        return super().create_timer(timer_period_sec, callback, *given, **({"clock": self._steady} | named))

    def create_subscription(self, msg_type: Any, topic: str, callback: Any, qos_profile: Any, **named: Any) -> Any:
        """Create a subscription; a publisher that does not fit shows in /diagnostics unless other events are given."""
        events = {"event_callbacks": self.misfits.of_subscription(topic, qos_profile)}
        with self._overridden(topic, "subscription", named):
            return super().create_subscription(msg_type, topic, callback, qos_profile, **(events | named))

    def create_publisher(self, msg_type: Any, topic: str, qos_profile: Any, **named: Any) -> Any:
        """Create a publisher; a subscription that does not fit shows in /diagnostics unless other events are given."""
        events = {"event_callbacks": self.misfits.of_publisher(topic, qos_profile)}
        with self._overridden(topic, "publisher", named):
            return super().create_publisher(msg_type, topic, qos_profile, **(events | named))

    @property
    def finished(self) -> bool:
        """Whether no goal or call is in progress; after `rest`, while the executor still works."""
        return True

    def rest(self) -> None:
        """Come to rest, whatever state rclpy's machine is in; twice changes nothing."""
        if self.active:
            self.deactivate()
            self.active = False

    def end(self) -> None:
        """Shut down at the end of the process, also a node that a transition has finalized before."""
        if not self._finalized:
            self.trigger_shutdown()
        self._undo()

    def configure(self) -> None:
        """Create publishers, subscriptions and the like. ValueError: the parameters are wrong."""

    def activate(self) -> None:
        """Start work; called once `active` holds. ValueError: it may not, and stays inactive."""

    def deactivate(self) -> None:
        """Come to rest; called while `active` still holds, also at shutdown."""

    def cleanup(self) -> None:
        """Undo `configure`; also called at shutdown, once."""

    def apply(self, parameters: list[Any]) -> None:
        """Take over parameters that are about to be set; called while configured. ValueError: it may not be."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unconfigured to inactive."""
        self._before = tuple(set(entities) for entities, _ in self._entities())
        try:
            with self._logged(in_one_line=ValueError):
                self.configure()
        except ValueError:
            self._destroy_made()
            return TransitionCallbackReturn.FAILURE
        self._warn_of_overrides()
        self.configured = True
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Inactive to active."""
        self.active = True
        try:
            with self._logged(in_one_line=ValueError):
                self.activate()
        except ValueError:
            self.active = False
            return TransitionCallbackReturn.FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Active to inactive: nothing is commanded and nothing is asked from here on."""
        with self._logged():
            self.rest()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Inactive to unconfigured; not while a goal or call is in progress."""
        if not self.finished:
            self.get_logger().error("a goal or call is still in progress: clean up when it has ended")
            return TransitionCallbackReturn.FAILURE
        with self._logged():
            self._undo()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The end; what is under way keeps what it needs until the process ends."""
        self._finalized = True
        with self._logged():
            self.rest()
            if self.finished:
                self._undo()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: rest and undo, as the node is unconfigured from here on."""
        with self._logged():
            self.rest()
            self._undo()
        return super().on_error(state)

    def _on_parameters(self, parameters: list[Any]) -> SetParametersResult:
        if self.configured:
            late = [parameter.name for parameter in parameters if parameter.name in self.until_configured]
            if late:
                reason = f"'{late[0]}' is read when {self.get_name()} is configured: deactivate and clean it up first"
                return SetParametersResult(successful=False, reason=reason)
            try:
                self.apply(parameters)
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _change_state(self, change: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        try:
            return change(request, response)
        except RCLError as error:
            self.get_logger().error(f"transition {request.transition.id} '{request.transition.label}': {error}")
            response.success = False
            return response

    @contextmanager
    def _logged(self, in_one_line: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """Log an exception: rclpy turns it into an error state without a word. A user's mistake needs no traceback."""
        try:
            yield
        except in_one_line as error:
            self.get_logger().error(str(error))
            raise
        except Exception:
            self.get_logger().error(traceback.format_exc())
            raise

    @contextmanager
    def _overridden(self, topic: str, end: str, named: dict[str, Any]) -> Iterator[None]:
        """Create a publisher or subscription in here. ValueError: parameters override its QoS by what it can't have."""
        if "qos_overriding_options" not in named:
            yield
            return
        name = f"{self.resolve_topic_name(topic)}.{end}"
        self._overridable.add(name)
        try:
            yield
        except _WRONG_OVERRIDE as error:
            raise ValueError(f"qos_overrides.{name}: {error}") from error

    def _warn_of_overrides(self) -> None:
        """Name each `qos_overrides` that no topic takes: rclpy ignores it."""
        given = {name.rpartition(".")[0] for name in self.get_parameters_by_prefix("qos_overrides")}
        for name in sorted(given - self._overridable - _RCLPY_OVERRIDABLE):
            near = difflib.get_close_matches(name, self._overridable, 1)
            hint = f", did you mean 'qos_overrides.{near[0]}'?" if near else ""
            self.get_logger().warning(f"no topic here takes 'qos_overrides.{name}', it is ignored{hint}")

    def _undo(self) -> None:
        if not self.configured:
            return
        self.configured = False
        self.cleanup()
        self._destroy_made()

    def _destroy_made(self) -> None:
        """Destroy what `configure` made, as opposed to the services that every node has from the start."""
        for (entities, destroy), before in zip(self._entities(), self._before):
            for entity in set(entities) - before:
                destroy(entity)

    def _entities(self) -> tuple[tuple[list[Any], Callable[[Any], bool]], ...]:
        return (
            (list(self.timers), self.destroy_timer),
            (list(self.subscriptions), self.destroy_subscription),
            (list(self.services), self.destroy_service),
            (list(self.clients), self.destroy_client),
            (list(self.publishers), self.destroy_publisher),
            (list(self.guards), self.destroy_guard_condition),
        )
