"""An episode to look at: PushCube with its camera, a scripted takeover, and a second version to compare with.

    python bench/look.py [--quick] [--json] [--out FOLDER]

Makes a server's root in FOLDER (default: a temporary one), with the shipped policy as version and a copy of it with
shaken weights as alias `candidate`, then draws the episode and its decisions with `pirl episodes draw` and `replay`:
the images of docs/how-to/look-at-episodes.md. `--quick` plays fewer steps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pirl_contract import ActionChunk, Alteration, ControlSource, Env, StepOutcome
from pirl_server import simulation
from pirl_server.data_commands import episodes as pirl_episodes
from pirl_server.episodes.store import EpisodeStore
from pirl_server.inspection.decision import decision_of
from pirl_server.inspection.replay import draw
from pirl_server.paths import EPISODES, MODELS
from pirl_server.policy.checkpoint import load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry.versions import Registry
from pirl_server.serving.episode_builder import EpisodeBuilder, EpisodeEnd, EpisodeStart

ROOT = Path(__file__).parents[1]
BASE = ROOT / "server/pirl_server/checkpoints/pushcube-base"
TASK, SEED = "PushCube-v1", 3
SHAKEN = 0.15
"""of each tensor's own deviation"""
LIMIT = 0.08
"""m per step along an axis of the tool: what is beyond is clamped, as a robot's governor does"""


def versions(root: Path) -> tuple[FlowPolicy, str]:
    """Put both versions into the archive; return the policy that drives, and the other one's version."""
    registry, policy = Registry(root / MODELS), FlowPolicy.load(BASE)
    registry.add(policy.version, BASE, policy.contract)
    card, weights, critic = load_checkpoint(BASE)
    torch.manual_seed(0)
    shaken = {name: each + SHAKEN * each.float().std() * torch.randn_like(each) if each.numel() > 1 else each
              for name, each in weights.items()}  # fmt: skip
    other = save_checkpoint(root / "shaken", card, shaken, critic, BASE)
    registry.add(other, root / "shaken", card.contract)
    registry.point("candidate", other, "bench", "shaken weights")
    return policy, other


def play(policy: FlowPolicy, env: Env, steps: int, takeover: int, root: Path) -> str:
    """Play one episode into the store: the policy until the step `takeover`, then the scripted expert."""
    expert, rate = simulation.expert(TASK), policy.contract.rate_hz
    seen = env.reset(SEED)
    start = EpisodeStart("sim-arm", policy.contract, seen.instruction, policy.name, policy.execute_horizon, False, {})
    store = EpisodeStore(root / EPISODES)
    builder = EpisodeBuilder(uuid.uuid4().hex, start, store.scratch("look"))
    step, success = 0, False
    while step < steps and not success:
        seen = replace(env.observe(), robot_id="sim-arm", capture_time_ns=1 + int(step * 1e9 / rate))
        began = time.perf_counter()
        sample = policy.sample(seen, explore=False, seed=1000 + step)
        chunk = ActionChunk(
            sample.actions, 1 / rate, uuid.uuid4().hex, policy.version, sample.seed, policy.execute_horizon
        )
        builder.add_call(seen, sample, chunk, 1e3 * (time.perf_counter() - began))
        for index in range(min(policy.execute_horizon, steps - step)):
            human = step >= takeover
            wanted = expert(env.observe()) if human else sample.actions[index]
            done = np.array([*np.clip(wanted[:3], -LIMIT, LIMIT), wanted[3]], np.float32)
            result = env.step(done)
            step += 1
            bits = Alteration.NONE if np.array_equal(done, wanted) else Alteration.LIMIT
            source = ControlSource.HUMAN if human else ControlSource.POLICY
            said = ("" if human else chunk.chunk_id, 0 if human else index, done, env.observe().state, result.reward)
            builder.add_outcomes([StepOutcome(*said, bits, source, 1 + int(step * 1e9 / rate))])
            if success := bool(result.success):
                break
    builder.announce(EpisodeEnd(success, "sim", "success" if success else "time_limit"))
    episode = builder.finish()
    store.write(episode)
    builder.close()
    return episode.info.id


def company(policy: FlowPolicy, root: Path, episode_id: str) -> float:
    """Largest difference of a chain (model space) when its decision is drawn among 15 others, or by two threads."""
    episode = EpisodeStore(root / EPISODES).open(episode_id)
    decisions = [decision_of(episode, call) for call in range(len(episode.calls.step))]
    largest = 0.0
    for threads, others in ((1, 15), (2, 0), (2, 15)):
        torch.set_num_threads(threads)
        for each in decisions:
            rows = [each.request(seed, False) for seed in range(others)] + [each.request(each.seed, False)]
            largest = max(largest, float(np.abs(draw(policy, rows)[-1].chain - each.chain).max()))
    torch.set_num_threads(1)
    return largest


def look(root: Path, episode_id: str) -> dict[str, object]:
    """Run the commands of the page; return what they took and found."""
    where = [episode_id, "--root", str(root)]
    named = {kind: str(root / name) for kind, name in
             (("sheet", "sheet.png"), ("video", "episode.mp4"), ("plot", "episode.png"))}  # fmt: skip
    began = time.perf_counter()
    assert pirl_episodes(["draw", *where, *(word for kind, path in named.items() for word in (f"--{kind}", path))]) == 0
    drawn_s = time.perf_counter() - began
    began, said = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pirl_episodes(
            ["replay", *where, "--version", "candidate", "--json", "--plot", str(root / "replay.png")]
        )
    replayed_s, found = time.perf_counter() - began, json.loads(said.getvalue())
    for call in found["most_different"][:1]:
        figure = str(root / "decision.png")
        with contextlib.redirect_stdout(io.StringIO()):
            pirl_episodes(["replay", *where, "--version", "candidate", "--call", str(call), "--plot", figure])
    results = [each["result"] for each in found["decisions"]]
    return {
        "episode": episode_id, "decisions": len(results), "drawn again exactly": results.count("exact"),
        "status": status, "differ by more than noise": sum(bool(each["differs"]) for each in found["decisions"]),
        "draw, s": round(drawn_s, 2), "replay of all decisions with 2 x 8 seeds, s": round(replayed_s, 2),
        "video, KiB": round((root / "episode.mp4").stat().st_size / 1024, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="new folder; default: a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with contextlib.ExitStack() as closing:
        root = options.out or Path(closing.enter_context(tempfile.TemporaryDirectory()))
        root.mkdir(parents=True, exist_ok=True)
        policy, _ = versions(root)
        env = simulation.reference_env(TASK, True)
        closing.callback(env.close)
        episode_id = play(policy, env, *((10, 6) if options.quick else (40, 20)), root)
        figures = look(root, episode_id)
        figures["largest difference in other company, model space"] = company(policy, root, episode_id)
        print(json.dumps(figures) if options.json else "\n".join(f"{name}: {each}" for name, each in figures.items()))


if __name__ == "__main__":
    main()
