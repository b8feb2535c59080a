"""`pirl serve`, `pirl sft`, `pirl evaluate`: arguments in, one function call, an exit status."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pirl_server.episodes.schema import Episode


def serve(arguments: Sequence[str]) -> int:
    """Serve a policy to robots (gRPC) and people (REST)."""
    parser = argparse.ArgumentParser(prog="pirl serve", description=serve.__doc__)
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, help="checkpoint folder with card.json; default: the production version"
    )
    parser.add_argument("--root", type=Path, default=Path("runs/server"), help="folder for models, episodes and jobs")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--grpc-port", type=int, default=50051)
    parser.add_argument("--rest-port", type=int, default=8000)
    parser.add_argument("--stop-port", type=int, help="for emergency stops only; default: REST port + 2; 0: none")
    parser.add_argument("--device", default="cpu", help="torch device of the policies: cpu, cuda, cuda:1")
    parser.add_argument("--explore", action="store_true", help="sample with noise unless a robot requests otherwise")
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate of this server, for gRPC and REST")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="private key of --tls-cert (PEM)")
    parser.add_argument("--tls-client-ca", type=Path, metavar="PEM", help="mTLS: accept only clients of this CA")
    parser.add_argument("--robot-rate-hz", type=float, default=0.0, help="chunks per second and robot; 0: unlimited")
    parser.add_argument("--episode-memory-mib", type=int, default=1024, help="for open episodes; the rest goes to disk")
    parser.add_argument("--openpi-port", type=int, help="also serve openpi clients over websocket")
    parser.add_argument("--openpi-key", action="append", default=[], metavar="NAME=KEY", help="camera, state or prompt")
    parser.add_argument("--drain-seconds", type=float, default=5.0, help="time to serve connected robots after SIGTERM")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--allow-insecure", action="store_true", help="development: a public address without certificate or tokens"
    )
    from pirl_server.app import serve as run
    from pirl_server.config.serve import ServeConfig

    return run(ServeConfig(**vars(parser.parse_args(arguments))))


def sft(arguments: Sequence[str]) -> int:
    """Train a policy on scripted demonstrations, or on successful logged episodes, and write a checkpoint folder."""
    from dataclasses import replace
    from functools import partial

    from pirl_server import simulation
    from pirl_server.config.training import SftConfig, override
    from pirl_server.policy.checkpoint import load_card
    from pirl_server.training.progress import Printed
    from pirl_server.training.supervised.sft import new_card, sft_episodes
    from pirl_server.training.supervised.sft import sft as train

    parser = argparse.ArgumentParser(prog="pirl sft", description=sft.__doc__)
    _common(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--base", type=Path, help="checkpoint folder to start from; default: new weights")
    parser.add_argument(
        "--episodes", type=Path, metavar="ROOT", help="train on the successful episodes in the --root of a server"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of SftConfig fields")
    options = parser.parse_args(arguments)
    config = override(SftConfig(), dict(_setting(word) for word in options.set))
    if options.base is None:
        card = new_card(
            config.preset, options.task, simulation.contract(options.task), simulation.instructions(options.task)
        )
    else:
        card = load_card(options.base)
    if options.episodes is not None:
        episodes = _successes(options.episodes, card.contract.hash)
        version = sft_episodes(options.out, card, episodes, config, options.seed, Printed(), options.base)
    else:
        sees = card.model.vision is not None
        steps, expert = simulation.max_steps(options.task), simulation.expert(options.task)
        version = train(
            options.out,
            replace(card, task=options.task, instructions=simulation.instructions(options.task)),
            partial(simulation.fast_env, options.task, sees),
            expert,
            steps,
            config,
            options.seed,
            Printed(),
            options.base,
        )
    print(f"{options.out}: version {version}")
    return 0


def _successes(root: Path, contract_hash: str) -> Iterator[Episode]:
    """Episodes below a server's root that are labelled a success, of the robot with this contract.

    Raises ValueError when there is none.
    """
    from pirl_server.episodes.store import EpisodeStore
    from pirl_server.paths import EPISODES

    if not (root / EPISODES).is_dir():
        raise ValueError(f"'{root}' holds no episodes: give the --root of a server")
    store = EpisodeStore(root / EPISODES)
    found = store.list()
    good = [each for each in found if each.success and each.contract_hash == contract_hash]
    if not good:
        raise ValueError(f"none of {len(found)} episodes in '{root}' is a success under the policy's contract")
    return (store.open(each.id) for each in good)


def finetune(arguments: Sequence[str]) -> int:
    """Improve a checkpoint folder by online RL in simulation, or make an experiment again and compare."""
    from dataclasses import replace

    from pirl_server.config.training import override
    from pirl_server.job_main import rl_defaults, run_experiment
    from pirl_server.training import experiment

    parser = argparse.ArgumentParser(prog="pirl finetune", description=finetune.__doc__)
    _common(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("base", nargs="?", type=Path, help="checkpoint folder to start from")
    what.add_argument("--again", type=Path, metavar="EXPERIMENT", help="folder of an experiment to rerun")
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment to write")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of PpoConfig fields")
    options = parser.parse_args(arguments)
    if options.again is not None:
        before = experiment.read(options.again)
        before.check_base()
        plan = replace(before, result="", cancelled=False)
    else:
        config = override(rl_defaults(options.base), dict(_setting(word) for word in options.set))
        plan = experiment.planned(options.task, options.base, config, options.seed)
    version = run_experiment(plan, options.out, experiment.Recorded(options.out))
    print(f"{options.out / experiment.CHECKPOINT}: version {version}")
    if options.again is not None:
        print("same version as before" if version == before.result else f"the first run gave version {before.result}")
        return int(version != before.result)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Success of a checkpoint folder on fixed initial states, through the simulator's own step."""
    from functools import partial

    from pirl_server import simulation
    from pirl_server.policy.checkpoint import load_card
    from pirl_server.registry.wilson import wilson_interval
    from pirl_server.training.evaluate import evaluate as run
    from pirl_server.training.progress import Printed
    from pirl_server.training.seeds import evaluation_seeds

    parser = argparse.ArgumentParser(prog="pirl evaluate", description=evaluate.__doc__)
    _common(parser)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=128)
    options = parser.parse_args(arguments)
    card = load_card(options.checkpoint)
    make = partial(simulation.reference_env, options.task, card.model.vision is not None)
    seeds = evaluation_seeds(options.seed)[: options.episodes]
    results = run(options.checkpoint, make, simulation.max_steps(options.task), seeds, Printed())
    parts: dict[str, list[bool]] = {}
    for seed, result in sorted(results.items()):
        parts.setdefault(simulation.part(options.task, seed), []).append(result.success)
    whole = {options.task: [result.success for result in results.values()]}
    for name, successes in (parts | whole).items():
        low, high = wilson_interval(sum(successes), len(successes))
        rate = sum(successes) / len(successes)
        print(f"{name}: {sum(successes)}/{len(successes)} = {rate:.3f} (95 % {low:.3f} to {high:.3f})")
    return 0


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="PushCube-v1")
    parser.add_argument("--seed", type=int, default=0)


def _setting(word: str) -> tuple[str, str | int | float]:
    """KEY=VALUE with the value as a number where it is one. Raises ValueError for another form."""
    key, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"'{word}' is not KEY=VALUE")
    for kind in (int, float):
        try:
            return key, kind(text)
        except ValueError:
            continue
    return key, text
