"""`pirl serve`, `pirl sft`, `pirl evaluate`: arguments in, one function call, an exit status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pirl_server.atomic_files import write_json
from pirl_server.config.command_line import add_flags, add_settings, parse_flags, read_flags, settings
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.fields import parse
from pirl_server.config.jobs import Evaluate, FinetuneEpisodes, FinetuneSim, Sft
from pirl_server.config.serve import ServeConfig
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig

DEFAULT_TASK = "PushCube-v1"
SpecT = TypeVar("SpecT", Sft, FinetuneEpisodes)


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
    _episode_flags(parser, "train on the successful episodes in the --root of a server")
    add_settings(parser, SftConfig)
    options = parser.parse_args(arguments)
    source = {} if options.episodes is None else {"source": "episodes"}
    spec = _spec(Sft, options, parse(SftConfig, settings(options.set) | source))
    if options.episodes is not None:
        return _learn(spec, options, options.out, options.out.with_name(f"{options.out.name}-data_report.json"))
    from pirl_server import simulation
    from pirl_server.training.progress import Printed
    from pirl_server.training.recipes import train_sft

    print(f"{options.out}: version {train_sft(spec, options.out, Printed(), simulation, options.base)}")
    return 0


def finetune(arguments: Sequence[str]) -> int:
    """Improve a checkpoint folder by online RL in simulation or from logged episodes, or rerun an experiment.

    Raises ValueError for logged episodes without a checkpoint to start from.
    """
    from pirl_server import simulation
    from pirl_server.training import experiment, recipes

    parser = argparse.ArgumentParser(prog="pirl finetune", description=(finetune.__doc__ or "").splitlines()[0])
    _common(parser, FinetuneSim)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("base", nargs="?", type=Path, help="checkpoint folder to start from")
    what.add_argument("--again", type=Path, metavar="EXPERIMENT", help="folder of an experiment to rerun")
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment to write")
    _episode_flags(parser, "learn from the labelled episodes in the --root of a server, without a simulator")
    parser.add_argument(
        "--new-instructions", action="store_true", help="learn also sentences that the base was not trained on"
    )
    add_settings(parser, PpoConfig, EpisodesConfig)
    options = parser.parse_args(arguments)
    if options.episodes is not None:
        if options.base is None:
            raise ValueError("--again reruns an experiment in simulation: give a checkpoint folder with --episodes")
        spec = _spec(FinetuneEpisodes, options, parse(EpisodesConfig, settings(options.set)))
        return _learn(spec, options, options.out / experiment.CHECKPOINT, options.out / "data_report.json")
    if options.again is not None:
        before = experiment.read(options.again)
        before.check_base()
        plan = replace(before, result="", cancelled=False)
    else:
        config = parse(PpoConfig, settings(options.set))
        task = options.task or DEFAULT_TASK
        asked = parse(FinetuneSim, {"task": task, "seed": options.seed, "config": config})
        plan = recipes.planned(asked.task, options.base, asked.config, asked.seed)
    version = recipes.run_experiment(plan, options.out, experiment.Recorded(options.out), simulation)
    print(f"{options.out / experiment.CHECKPOINT}: version {version}")
    if options.again is not None:
        print("same version as before" if version == before.result else f"the first run gave version {before.result}")
        return int(version != before.result)
    return 0


def _episode_flags(parser: argparse.ArgumentParser, description: str) -> None:
    group = parser.add_argument_group("logged episodes")
    group.add_argument("--episodes", type=Path, metavar="ROOT", help=description)
    group.add_argument("--dataset", metavar="NAME", help="learn from this dataset, in place of a selection")
    group.add_argument("--dry-run", action="store_true", help="report on the selected episodes and learn nothing")
    add_flags(group, EpisodeSelection)


def _spec(kind: type[SpecT], options: argparse.Namespace, config: SftConfig | EpisodesConfig) -> SpecT:
    """What a command asks for. Of logged episodes the task is the base's where none is given."""
    from pirl_server.policy.checkpoint import load_card

    task = options.task
    if task is None and options.episodes is not None and options.base is not None:
        task = load_card(options.base).task
    values = {"task": task or DEFAULT_TASK, "seed": options.seed, "config": config, "dry_run": options.dry_run}
    values |= {"select": read_flags(EpisodeSelection, options), "dataset": options.dataset}
    if hasattr(options, "new_instructions"):
        values["new_instructions"] = options.new_instructions
    return parse(kind, values)


def _learn(spec: Sft | FinetuneEpisodes, options: argparse.Namespace, out: Path, kept: Path) -> int:
    """Print the report on the episodes, learn from them unless it is a dry run, and keep the report beside `out`."""
    from pirl_server.training import episode_report, recipes
    from pirl_server.training.progress import Printed

    data = recipes.episode_data(spec, options.episodes, Printed(), options.base)
    print("\n".join(episode_report.lines(data.report)))
    if spec.dry_run:
        return 0
    learnt = recipes.train_on_episodes(spec, data, out, Printed(), options.base)
    write_json(kept, asdict(data.report))
    print(f"{out}: version {learnt.version}")
    if learnt.offline is not None:
        print(learnt.offline)
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
    spec = parse(Evaluate, {"task": options.task or DEFAULT_TASK, "seed": options.seed, "episodes": options.episodes})
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
    parser.add_argument("--task", help=f"default: {DEFAULT_TASK}; of logged episodes, the base's")
    parser.add_argument("--seed", type=int, default=kind.seed, help="default: %(default)s")
