"""Does anything get past the arm's safety logic? Simulated time, 50 Hz, the whole robot side but for ROS.

    python bench/faults.py [--quick] [--json]

1. Actions that are NaN, out of range, jumping or stale, among good ones: none may break a limit of what is sent.
2. The policy server killed, or the network cut, mid-motion: periods from the chunk's expiry to braking, to rest.
3. The states of the arm falling silent mid-motion: time from the watchdog's expiry to braking.
4. Clocks that jump by an hour: how many chunks are wrongly taken for stale, or for fresh.
5. Microseconds of CPU per command of a seven-joint arm.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pirl_contract.schema import Alteration
from pirl_ros.control.arm_executor import ArmExecutor
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.control.governor import Governor
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.control.limit_check import violations
from pirl_ros.control.limits import Limits
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import ArmGroup, Box, Joint
from pirl_ros.sensing.observation import JOINTS
from pirl_ros.sensing.synchronizer import Bundle

READY = np.array([0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4], np.float32).astype(np.float64)
PERIOD_NS, HOUR_NS, HORIZON, EXECUTE = 20_000_000, 3_600_000_000_000, 40, 10
BAD = ("nan", "range", "jump", "stale")


def real_arm(path: Path) -> Profile:
    """A Panda as a real arm would be described: limits that bind, a box of a table's size."""
    profile = load_profile(path)
    joints = tuple(Joint(j.name, j.low, j.high, j.velocity, 8.0, 400.0) for j in profile.arm.joints)
    safety = replace(
        profile.safety, speed_scale=1.0, watchdog_s=0.1, link_loss_s=0.3, max_observation_age=0.06, max_jump=0.5,
        max_chunk_age=1.0, workspace=Box((0.3, -0.4, 0.05), (0.75, 0.4, 0.7)),
    )  # fmt: skip
    return replace(
        profile, action="joint_position", tick="timer", rate_hz=1e9 / PERIOD_NS, tcp_step=0.0, poses=(),
        arm=ArmGroup(joints), safety=safety,
    )  # fmt: skip


class Rig:
    """The arm, its clock and its policy; `now_ns` is monotonic, stamps differ from it by `clock_ns`."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile, self.executor, self.rng = profile, ArmExecutor(profile), np.random.default_rng(seed)
        self.now_ns, self.clock_ns, self.sequence = 10 * HOUR_NS, 5 * HOUR_NS, 0
        self.joints, self.sent, self.goal = READY.copy(), [READY], READY
        self.expiry_ns = 0
        self.executor.begin("e")

    @property
    def playing(self) -> bool:
        """Whether an action of a chunk was sent in the last period."""
        return self.executor.report.mode.value in ("playing", "draining")

    def state(self) -> Bundle:
        names = [joint.name for joint in self.profile.joints]
        message = SimpleNamespace(name=names, position=[*self.joints, 0.04, 0.04], velocity=[0.0] * len(names))
        return Bundle(self.now_ns + self.clock_ns, self.now_ns, {JOINTS: message})

    def period(self, state: bool = True) -> Alteration:
        """Let one pass; the arm follows with a lag."""
        self.now_ns += PERIOD_NS
        command = self.executor.tick(self.state() if state else None, self.now_ns).command
        if command is None:
            return Alteration.NONE
        if command.joints is not None:
            self.sent.append(command.joints)
            self.joints = self.joints + 0.6 * (command.joints - self.joints)
        return command.alterations

    def chunk(self, spoil: str = "", age_ns: int = 0) -> str:
        """Offer a chunk towards a goal that wanders; `spoil`: every third action is bad in this way."""
        self.goal = np.clip(self.goal + self.rng.normal(0, 0.15, 7), READY - 0.4, READY + 0.4)
        share = np.linspace(0, 1, HORIZON + 1)[1:, None]
        actions = np.hstack([self.sent[-1] + share * (self.goal - self.sent[-1]), np.ones((HORIZON, 1))])
        bad = slice(None, None, 3)
        if spoil == "nan":
            actions[bad] = self.rng.choice([np.nan, np.inf, -np.inf], actions[bad].shape)
        elif spoil == "range":
            actions[bad] = self.rng.choice([-1e30, 1e30, 9.0, -9.0], actions[bad].shape)
        elif spoil == "jump":
            actions[bad, :7] += self.rng.choice([-2.0, 2.0], actions[bad, :7].shape)
        elif spoil == "stale":
            age_ns = int(self.rng.choice([2, 60, 7200])) * 1_000_000_000
        # Its first action was due with this period's command, if there was one of a chunk; then one per period.
        begun_ns = self.now_ns + PERIOD_NS * (not self.playing)
        drained_ns = round(self.profile.safety.link_loss_s * 1e9)
        self.expiry_ns = begun_ns + min(HORIZON * PERIOD_NS, EXECUTE * PERIOD_NS + drained_ns)
        self.sequence += 1
        stamp_ns = self.now_ns + self.clock_ns - age_ns
        name = f"c{self.sequence}"
        return self.executor.accept(
            PlayableChunk("e", self.sequence, name, actions.astype(np.float32), EXECUTE, stamp_ns, PERIOD_NS / 1e9)
        )

    def broken(self) -> dict[str, float]:
        """Limits that what was sent did not keep."""
        return violations(
            np.array(self.sent), Limits.from_profile(self.profile), Chain.from_table(self.profile.kinematics)
        )


def injected(profile: Profile, count: int) -> dict[str, float]:
    """Figure 1: `count` bad actions."""
    rig, offered, unmarked = Rig(profile, 1), 0, 0
    while offered < count:
        for spoil in BAD:
            rig.chunk(spoil)
            for index in range(EXECUTE):
                bits = rig.period()
                bad = spoil == "stale" or index % 3 == 0
                offered += bad and (spoil != "stale" or index == 0)
                unmarked += bad and not bits and rig.playing
        rig.chunk()
        for _ in range(EXECUTE):
            rig.period()
    return {
        "bad actions given": offered,
        "bad actions not marked": unmarked,
        "commands sent among them": len(rig.sent),
        "limits broken": len(rig.broken()),
    }


def cut_link(profile: Profile, count: int) -> dict[str, float]:
    """Figure 2: no chunk any more, at any moment of a motion."""
    to_brake, to_rest, broken = [], [], 0
    for number in range(count):
        rig = Rig(profile, 100 + number)
        for _ in range(int(rig.rng.integers(1, 5))):
            rig.chunk()
            for _ in range(int(rig.rng.integers(1, EXECUTE + 4))):
                rig.period()
        while rig.playing:
            rig.period()
        to_brake.append((rig.now_ns - rig.expiry_ns) / PERIOD_NS)
        while rig.executor.report.mode.value != "stopped":
            rig.period()
        to_rest.append((rig.now_ns - rig.expiry_ns) / PERIOD_NS)
        still = rig.sent[-1]
        late = rig.chunk()
        for _ in range(25):
            rig.period()
        broken += len(rig.broken()) + (not late) + bool((rig.sent[-1] != still).any())
    return {
        "links cut": count,
        "periods from expiry to braking, least": min(to_brake),
        "periods from expiry to braking, most": max(to_brake),
        "periods from expiry to latched rest, most": max(to_rest),
        "links cut: limits broken, late replies played": broken,
    }


def silence(profile: Profile, count: int) -> dict[str, float]:
    """Figure 3: no state of the arm any more."""
    brake_ms, latch_ms, broken = [], [], 0
    for number in range(count):
        rig = Rig(profile, 1000 + number)
        rig.chunk()
        for _ in range(int(rig.rng.integers(2, EXECUTE))):
            rig.period()
        began_ns, braked = rig.now_ns, 0
        while not rig.executor.report.latched:
            rig.period(state=False)
            if not braked and not rig.playing:
                braked = rig.now_ns
        brake_ms.append((braked - began_ns) / 1e6)
        latch_ms.append((rig.now_ns - began_ns) / 1e6 - 1e3 * profile.safety.watchdog_s)
        for _ in range(50):
            rig.period()
        broken += len(rig.broken()) + (rig.executor.report.mode.value != "stopped")
    return {
        "silences": count,
        "ms from the last state to braking, most": max(brake_ms),
        "ms from watchdog expiry to the latch, most": max(latch_ms),
        "silences: limits broken, moved again": broken,
    }


def clock_jumps(profile: Profile, count: int) -> dict[str, float]:
    """Figure 4: stamps jump an hour to and fro; fresh chunks must be played, old ones must not."""
    rig, wrong, stamps = Rig(profile, 7), 0, list[int]()
    old = round(1.5 * profile.safety.max_chunk_age * 1e9 / PERIOD_NS)

    def pass_by(periods: int) -> bool:
        stale = False
        for _ in range(periods):
            stale |= bool(rig.period() & Alteration.STALE)
            stamps.append(rig.now_ns + rig.clock_ns)
        return stale

    pass_by(2 * old)
    for number in range(count):
        fresh = bool(number % 2)
        # The observation was made before the jump or after it, and carries the stamp that it was given then.
        rig.clock_ns += int(rig.rng.choice([HOUR_NS, -HOUR_NS]))
        pass_by(int(rig.rng.integers(1, 4)))
        stamp_ns = stamps[-int(rig.rng.integers(1, 6))] if fresh else stamps[-old]
        rig.chunk(age_ns=rig.now_ns + rig.clock_ns - stamp_ns)
        wrong += pass_by(1) == fresh
        pass_by(3)
        rig.executor.engage("bench")
        pass_by(5)
    return {"clock jumps": count, "wrong staleness decisions": wrong, "clock jumps: limits broken": len(rig.broken())}


def cost(profile: Profile, count: int) -> dict[str, float]:
    """Figure 5: of the governor alone, the least of batches since the machine may be shared."""
    limits, chain = Limits.from_profile(profile), Chain.from_table(profile.kinematics)
    rng = np.random.default_rng(5)
    wide = replace(limits, workspace_low=np.full(3, -9.0), workspace_high=np.full(3, 9.0))
    kinds: dict[str, tuple[Limits, Array]] = {
        "goals out of reach": (wide, np.repeat(READY + rng.uniform(-0.4, 0.4, (count // 25 + 1, 7)), 25, axis=0)),
        "smooth targets": (wide, READY + 0.2 * np.sin(np.arange(count)[:, None] * 0.04 + np.arange(7))),
        "goals beyond a wall": (limits, np.repeat(READY + rng.uniform(-0.9, 0.9, (count // 25 + 1, 7)), 25, axis=0)),
    }
    figures = {}
    for name, (kept, targets) in kinds.items():
        governor, measured, batches = Governor(kept, chain), READY, []
        for batch in np.array_split(targets[:count], 20):
            began = time.process_time()
            for target in batch:
                command, _ = governor.command(target, measured, 0.0, 0.0)
                measured = measured if command is None else command
            batches.append((time.process_time() - began) / len(batch) * 1e6)
        figures[f"CPU us per command, {name}, median"] = round(float(np.median(batches)))
        figures[f"CPU us per command, {name}, least"] = round(min(batches))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the faults")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    profile = real_arm(Path(__file__).parents[1] / "launch" / "params" / "panda_sim.yaml")
    few = 10 if options.quick else 1
    figures = injected(profile, 10_000 // few)
    figures |= cut_link(profile, 200 // few)
    figures |= silence(profile, 200 // few)
    figures |= clock_jumps(profile, 200 // few)
    figures |= cost(profile, 4000 // few)
    print(
        json.dumps(figures) if options.json else "\n".join(f"{name:50}{value:>9g}" for name, value in figures.items())
    )


if __name__ == "__main__":
    main()
