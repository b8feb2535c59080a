"""`pirl serve`, `pirl sft`, `pirl evaluate`: arguments in, one function call, an exit status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pirl_server.config.command_line import add_settings, parse_flags, settings
from pirl_server.config.fields import parse
from pirl_server.config.jobs import Evaluate, FinetuneSim, Sft
from pirl_server.config.serve import ServeConfig
from pirl_server.config.training import PpoConfig, SftConfig


def serve(arguments: Sequence[str]) -> int:
    """Serve a policy to robots (gRPC) and people (REST)."""
    parser = argparse.ArgumentParser(prog="pirl serve", description=serve.__doc__)
    config = parse_flags(parser, ServeConfig, arguments, first="checkpoint")
    from pirl_server.app import serve as run

    return run(config)


def sft(arguments: Sequence[str]) -> int:
    """Train a policy on scripted demonstrations, or on successful logged episodes, and write a checkpoint folder."""
    parser = argparse.ArgumentParser(prog="pirl sft", description=sft.__doc__)
    _common(parser, Sft)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--base", type=Path, help="checkpoint folder to start from; default: new weights")
    parser.add_argument(
        "--episodes", type=Path, metavar="ROOT", help="train on the successful episodes in the --root of a server"
    )
    add_settings(parser, SftConfig)
    options = parser.parse_args(arguments)
    source = {} if options.episodes is None else {"source": "episodes"}
    config = parse(SftConfig, settings(options.set) | source)
    spec = parse(Sft, {"task": options.task, "seed": options.seed, "config": config})
    from pirl_server import simulation
    from pirl_server.training.progress import Printed
    from pirl_server.training.recipes import train_sft

    base, root = options.base, options.episodes
    version = train_sft(spec, options.out, Printed(), simulation, base=base, root=root, any_instruction=True)
    print(f"{options.out}: version {version}")
    return 0


def finetune(arguments: Sequence[str]) -> int:
    """Improve a checkpoint folder by online RL in simulation, or make an experiment again and compare."""
    from pirl_server.job_main import run_experiment
    from pirl_server.training import experiment, recipes

    parser = argparse.ArgumentParser(prog="pirl finetune", description=finetune.__doc__)
    _common(parser, FinetuneSim)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("base", nargs="?", type=Path, help="checkpoint folder to start from")
    what.add_argument("--again", type=Path, metavar="EXPERIMENT", help="folder of an experiment to rerun")
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment to write")
    add_settings(parser, PpoConfig)
    options = parser.parse_args(arguments)
    if options.again is not None:
        before = experiment.read(options.again)
        before.check_base()
        plan = replace(before, result="", cancelled=False)
    else:
        config = parse(PpoConfig, settings(options.set))
        spec = parse(FinetuneSim, {"task": options.task, "seed": options.seed, "config": config})
        config = recipes.sim_rl_config(spec.config, options.base)
        plan = experiment.planned(spec.task, options.base, config, spec.seed)
    version = run_experiment(plan, options.out, experiment.Recorded(options.out))
    print(f"{options.out / experiment.CHECKPOINT}: version {version}")
    if options.again is not None:
        print("same version as before" if version == before.result else f"the first run gave version {before.result}")
        return int(version != before.result)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Success of a checkpoint folder on fixed initial states, through the simulator's own step."""
    from pirl_server import simulation
    from pirl_server.policy.checkpoint import load_card
    from pirl_server.registry.wilson import wilson_interval
    from pirl_server.training.evaluate import evaluate as run
    from pirl_server.training.progress import Printed
    from pirl_server.training.seeds import evaluation_seeds

    parser = argparse.ArgumentParser(prog="pirl evaluate", description=evaluate.__doc__)
    _common(parser, Evaluate)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=Evaluate.episodes, help="initial states (default: %(default)s)")
    options = parser.parse_args(arguments)
    spec = parse(Evaluate, {"task": options.task, "seed": options.seed, "episodes": options.episodes})
    card = load_card(options.checkpoint)
    make = partial(simulation.reference_env, spec.task, card.model.vision is not None)
    seeds = evaluation_seeds(spec.seed)[: spec.episodes]
    results = run(options.checkpoint, make, simulation.max_steps(spec.task), seeds, Printed())
    parts: dict[str, list[bool]] = {}
    for seed, result in sorted(results.items()):
        parts.setdefault(simulation.part(spec.task, seed), []).append(result.success)
    whole = {spec.task: [result.success for result in results.values()]}
    for name, successes in (parts | whole).items():
        low, high = wilson_interval(sum(successes), len(successes))
        rate = sum(successes) / len(successes)
        print(f"{name}: {sum(successes)}/{len(successes)} = {rate:.3f} (95 % {low:.3f} to {high:.3f})")
    return 0


def _common(parser: argparse.ArgumentParser, kind: type[Sft | FinetuneSim | Evaluate]) -> None:
    parser.add_argument("--task", default="PushCube-v1", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=kind.seed, help="default: %(default)s")
