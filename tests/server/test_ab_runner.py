"""A comparison that ends, or can't end, while robots run: what they get then, and what is on the disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from deployed_world import World
from patience import until

from pirl_server.episodes.store import EpisodeStore
from pirl_server.registry.ab_trials import AbTrials
from pirl_server.watch.ab_runner import AbPlan, AbRunner

PLAN = AbPlan("v2", "v1", ("arm-1",), 50, 0.15, 0.05)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "episodes")


def runner_of(world: World, store: EpisodeStore) -> AbRunner:
    return AbRunner(world.registry, world.deployment, store, AbTrials(world.registry.root))


def drawn(world: World, name: str) -> set[str]:
    """Versions of the robot's next two episodes."""
    for number in range(2):
        world.begin(f"{name}-{number}", "arm-1")
    return {world.answered_by("arm-1", f"{name}-{number}") for number in range(2)}


def restarted(world: World) -> None:
    world.engine.close()
    world.start()


def test_one_that_was_begun_without_a_reason_continues_after_a_restart(world: World, store: EpisodeStore) -> None:
    runner = runner_of(world, store)
    trial = runner.begin(PLAN, "ada", "", force=False)
    runner.close()
    restarted(world)
    again = runner_of(world, store)
    assert (again.running, again.trials.get(trial.id).status) == (trial, "running")
    assert drawn(world, "after") == {"v1", "v2"}
    again.close()


def test_one_whose_production_changed_while_no_server_ran_gives_no_robot_its_versions(
    world: World, store: EpisodeStore
) -> None:
    runner = runner_of(world, store)
    trial = runner.begin(PLAN, "ada", "", force=False)
    runner.close()
    world.registry.point("production", "v3", "ada", "by hand")
    restarted(world)
    again = runner_of(world, store)
    assert drawn(world, "after") == {"v3"}
    until(lambda: again.running is None, "its end")
    assert "production is v3" in again.trials.get(trial.id).note
    again.close()


def test_a_full_disk_keeps_no_robot_on_a_compared_version(
    world: World, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(world, store)
    trial = runner.begin(PLAN, "ada", "", force=False)
    with monkeypatch.context() as full:

        def reject(trial: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(runner.trials, "put", reject)
        with pytest.raises(OSError, match="No space"):
            runner.stop(trial.id, "ada", "it hits the table")
        assert drawn(world, "full") == {"v1"}
        assert runner.trials.get(trial.id).running
    until(lambda: runner.running is None, "its end is stored once there is room")
    assert "it hits the table" in runner.trials.get(trial.id).note
    runner.close()


def test_a_recalled_version_ends_it(world: World, store: EpisodeStore) -> None:
    world.deployment.canary("v2", ["arm-2"], 0.0, "test")
    runner = runner_of(world, store)
    trial = runner.begin(PLAN, "ada", "", force=False)
    world.deployment.recall("ada", "it hits the table")
    until(lambda: runner.running is None, "its end")
    assert "recalled" in runner.trials.get(trial.id).note
    runner.close()


def test_a_fault_takes_the_other_version_from_its_running_episode(world: World, store: EpisodeStore) -> None:
    runner = runner_of(world, store)
    trial = runner.begin(PLAN, "ada", "", force=False)
    assert drawn(world, "running") == {"v1", "v2"}
    with runner._lock:
        runner._end(trial, "stopped", "an emergency stop", ["v2"])
    assert {world.answered_by("arm-1", f"running-{number}") for number in range(2)} == {"v1"}
    runner.close()
