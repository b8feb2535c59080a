"""From the label to the end of an episode: none that was acknowledged is lost, and nothing goes that is needed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_episodes import many, publish
from patience import patient, until
from test_episode_store import make_episode

from pirl_contract import Contract, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.data_commands import dataset, episodes
from pirl_server.episodes.retention import DATASET, READ, SUCCESS, Janitor, Retention, plan, remove
from pirl_server.episodes.store import EpisodeStore, OutdatedError

Observe = Callable[[int], Observation]
READER = """
import sys, time
from pathlib import Path
from pirl_server.episodes.store import EpisodeStore
lease = EpisodeStore(Path(sys.argv[1])).leases.take()
print("chosen nothing yet", flush=True)
sys.stdin.readline()
lease.set(sys.argv[2:])
print("reads", flush=True)
time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "episodes")


def begun(client: PolicyClient, contract: Contract, observe: Observe) -> str:
    """An episode with one call and one step."""
    episode_id: str = client.start_episode(contract, observe(0).instruction)
    chunk = client.infer(observe(0))
    client.report_outcomes([StepOutcome(chunk.chunk_id, 0, np.zeros(2, np.float32), np.zeros(3, np.float32))])
    return episode_id


class Held:
    """Writing of the store waits while it is held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, write = threading.Event(), threading.Event(), EpisodeStore.write

        def held(store: EpisodeStore, episode: Any) -> Any:
            self.begun.set()
            assert self.go.wait(patient(30))
            return write(store, episode)

        monkeypatch.setattr(EpisodeStore, "write", held)


def test_a_label_that_comes_while_the_episode_is_written_is_on_the_disk_when_it_is_acknowledged(
    service: Any, contract: Contract, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash right after the acknowledgement loses neither: whoever reads the files finds it."""
    held, robot, operator = Held(monkeypatch), service.connect(), service.connect("arm-2")
    episode_id = begun(robot, contract, observe)
    ending = threading.Thread(target=lambda: robot.end_episode("failure", "sim", "time_limit"))
    ending.start()
    assert held.begun.wait(patient(30))
    assert operator.label_episode("success", "operator", "it did", episode_id=episode_id) == "failure"
    (line,) = map(json.loads, (service.store.root / "labels.jsonl").read_text().splitlines())
    assert (line["episode"], line["success"], line["note"]) == (episode_id, True, "it did")
    held.go.set()
    ending.join()
    assert EpisodeStore(service.store.root).summary(episode_id).success is True
    assert service.store.open(episode_id).info.success is True


def test_a_label_between_two_attempts_to_end_outlives_the_second(
    service: Any, contract: Contract, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot, operator = service.connect(), service.connect("arm-2")
    episode_id, write = begun(robot, contract, observe), EpisodeStore.write

    def full(store: EpisodeStore, episode: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EpisodeStore, "write", full)
    with pytest.raises(Exception, match="No space left"):
        robot.end_episode("failure", "sim", "time_limit")
    monkeypatch.setattr(EpisodeStore, "write", write)
    assert operator.label_episode("success", "operator", episode_id=episode_id) == "failure"
    robot.end_episode("failure", "sim", "time_limit")
    assert EpisodeStore(service.store.root).summary(episode_id).success is True


def test_a_label_never_overtakes_the_end_before_it(service: Any, contract: Contract, observe: Observe) -> None:
    """Both sent at once in one session, by two threads that do not wait for the replies."""
    client = service.connect()
    for _ in range(8):
        episode_id = begun(client, contract, observe)
        ending = threading.Thread(target=lambda: client.end_episode("failure", "sim", "time_limit"))
        ending.start()
        until(lambda: not service.recorder.is_open(episode_id) or service.recorder._ending)  # noqa: B023
        client.label_episode("success", "operator", episode_id=episode_id)
        ending.join()
        assert service.store.summary(episode_id).success is True


def test_without_room_no_episode_begins_and_chunks_are_drawn_all_the_same(
    service: Any, contract: Contract, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.connect()
    monkeypatch.setattr(EpisodeStore, "free_bytes", lambda self: 3 << 20)
    with pytest.raises(Exception, match=r"no episode can be recorded: 3 MiB of disk space left, 256 MiB"):
        client.start_episode(contract, observe(0).instruction)
    assert client.infer(observe(0)).chunk_id
    monkeypatch.undo()
    assert client.start_episode(contract, observe(0).instruction)
    service.store.least_free = 2**60
    with pytest.raises(Exception, match="MiB are kept for an episode"):
        client.start_episode(contract, observe(0).instruction)


def test_labels_are_a_stack_with_authors(store: EpisodeStore) -> None:
    """Against a list that does the same."""
    said, rng = store.write(make_episode()), random.Random(0)
    stack, undone = [(said.success, said.label_source)], 0
    for number in range(60):
        if rng.random() < 0.5:
            success = rng.choice((True, False, None))
            source = "operator" if success is not None else ""
            store.label(said.id, success, "operator", f"note {number}", "ada")
            stack.append((success, source))
        elif len(stack) > 1:
            store.undo(said.id, "bob")
            stack.pop()
            undone += 1
        else:
            with pytest.raises(ValueError, match="none to undo"):
                store.undo(said.id)
        found = EpisodeStore(store.root).summary(said.id) if number % 10 == 0 else store.summary(said.id)
        assert (found.success, found.label_source) == stack[-1]
    labels = store.labels(said.id)
    assert (labels[0].success, labels[0].source) == (said.success, said.label_source)
    assert sum(each.undo for each in labels) == undone > 5
    assert {each.author for each in labels[1:]} == {"ada", "bob"}
    assert store.entry(said.id).label_count == len(labels) - 1


def test_a_label_for_another_state_is_rejected(store: EpisodeStore) -> None:
    said = store.write(make_episode())
    seen = store.entry(said.id).etag
    EpisodeStore(store.root).label(said.id, False, "operator")
    with pytest.raises(OutdatedError, match="look again"):
        store.label(said.id, None, "operator", expected=seen)
    assert store.summary(said.id).success is False
    store.label(said.id, None, "operator", expected=store.entry(said.id).etag)
    assert store.summary(said.id).success is None


def test_only_what_is_not_needed_goes_oldest_first(store: EpisodeStore) -> None:
    listed = many(store.root, 40)
    failures = [each for each in listed if not each.success]
    frozen = store.datasets.create("kept", [store.entry(each.id) for each in failures[:3]], EpisodeSelection())
    lease = store.leases.take()
    assert {why for _, why in plan(store, Retention(older_than_days=1)).protected} == {SUCCESS, DATASET, READ}
    assert plan(store, Retention(older_than_days=1)).remove == (), "a reader has not chosen yet"
    lease.set([failures[-1].id])
    found = plan(store, Retention(older_than_days=1))
    assert [each.summary.id for each in found.remove] == [each.id for each in failures[3:-1]][::-1]
    assert plan(store, Retention(older_than_days=1e6)).remove == ()
    version = plan(store, Retention(EpisodeSelection(versions=("v3",), label="failure"))).remove
    assert {each.summary.policy_versions for each in version} == {("v3",)}
    size = found.bytes_now - found.remove[0].size - found.remove[1].size
    assert plan(store, Retention(keep_bytes=size)).remove == found.remove[:2]
    count, _ = remove(store, [*found.remove[:2], *(each for each, _ in found.protected)])
    assert count == 2, "what is protected stays, even when it is named"
    assert {each.id for each in store.list()} == {each.id for each in EpisodeStore(store.root).list()}
    assert len(store.list()) == 38
    assert not any(store.root.glob("staging/*"))
    forced = plan(store, Retention(older_than_days=1), force=True)
    assert remove(store, forced.remove, force=True)[0] == 38
    assert store.list() == []
    assert len(frozen.episodes) == 3
    with pytest.raises(ValueError, match="nothing says which"):
        Retention()


def test_a_reader_in_another_process_protects_until_it_dies(store: EpisodeStore) -> None:
    victim, other = [each for each in many(store.root, 30) if each.success is False][:2]
    command = [sys.executable, "-c", READER, str(store.root), victim.id]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdout.readline()
    entries = [store.entry(victim.id), store.entry(other.id)]
    assert remove(store, entries)[0] == 0
    print(file=reader.stdin, flush=True)
    reader.stdout.readline()
    assert remove(store, entries)[0] == 1
    assert store.entry(victim.id)
    reader.kill()
    reader.communicate()
    assert remove(store, entries)[0] == 1
    assert list((store.root / "readers").iterdir()) == []


def test_the_server_removes_by_its_settings(store: EpisodeStore) -> None:
    listed = many(store.root, 20)
    janitor = Janitor(store, [Retention(older_than_days=1)], every_s=600)
    until(lambda: len(store.list()) == sum(each.success is True for each in listed))
    janitor.close()


def test_a_dataset_says_the_same_whatever_is_labelled_later(store: EpisodeStore) -> None:
    said = [store.write(make_episode()) for _ in range(4)]
    made = store.datasets.create("first", list(store.select(EpisodeSelection())), EpisodeSelection(), "ada")
    for each in said:
        store.label(each.id, False, "operator")
    again = EpisodeStore(store.root).datasets.get("first")
    assert again == made
    assert again.sha256 == made.sha256
    assert [store.open_frozen(each).info.success for each in again.episodes] == [True] * 4
    relabelled = store.datasets.create("second", list(store.select(EpisodeSelection())), EpisodeSelection())
    assert relabelled.sha256 != made.sha256, "negative control: the label is part of it"
    with pytest.raises(ValueError, match="never changed"):
        store.datasets.create("first", list(store.select(EpisodeSelection())), EpisodeSelection())
    with pytest.raises(ValueError, match="no episode satisfies"):
        store.datasets.create("empty", [], EpisodeSelection())


def test_a_changed_or_missing_episode_of_a_dataset_is_named(store: EpisodeStore, tmp_path: Path) -> None:
    gone, changed, whole = (store.write(make_episode()) for _ in range(3))
    made = store.datasets.create("first", list(store.select(EpisodeSelection())), EpisodeSelection())
    store.remove(gone.id)
    path = store.root / changed.path
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    faults = list[str]()
    for each in made.episodes:
        try:
            store.open_frozen(each)
        except ValueError as error:
            faults.append(str(error))
    assert len(faults) == 2
    assert any(gone.id in each and "missing" in each for each in faults)
    assert any(changed.id in each for each in faults)
    file = store.root / "datasets" / "first.json"
    file.write_text(file.read_text().replace('"success": true', '"success": false', 1))
    with pytest.raises(ValueError, match=r"first\.json.*changed after it was written"):
        store.datasets.get("first")
    assert whole.id in {each.id for each in made.episodes}


def test_the_commands_list_label_freeze_and_prune(
    store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(tmp_path)]
    said = store.write(make_episode())
    old = many(store.root, 6)

    def run(command: Callable[[list[str]], int], *words: str) -> str:
        assert command([words[0], *root, *words[1:]]) == 0
        return capsys.readouterr().out

    assert [json.loads(line)["id"] for line in run(episodes, "ls", "--json").splitlines()] == [
        each.id for each in store.list()
    ]
    assert said.id in run(episodes, "ls", "--robots", "arm-1", "--label", "success")
    assert "failure" in run(episodes, "label", said.id, "failure", "--note", "it slipped")
    shown = json.loads(run(episodes, "show", said.id))
    assert (shown["success"], shown["note"], len(shown["labels"])) == (False, "it slipped", 2)
    assert "(command line)" in shown["author"]
    assert "success" in run(episodes, "undo", said.id)
    assert "7 episodes" in run(dataset, "create", "all")
    assert "all" in run(dataset, "ls")
    assert len(json.loads(run(dataset, "show", "all"))["episodes"]) == 7
    more = replace(old[0], id="f" * 32, path=old[0].path.replace(old[0].id, "f" * 32), success=False)
    publish(store.root, more)
    assert "would be removed: add --yes" in run(episodes, "prune", "--label", "failure")
    assert len(store.list()) == 8, "nothing is changed without --yes"
    assert run(episodes, "prune", "--label", "failure", "--yes").endswith("1 episodes, 0.00 GiB removed\n")
    assert {each.id for each in store.list()} == {each.id for each in [said, *old]}
    for words in (["show", "f" * 32], ["label", "f" * 32, "success"], ["undo", "f" * 32]):
        with pytest.raises(ValueError, match="pirl episodes ls lists them"):
            episodes([words[0], *root, *words[1:]])
    with pytest.raises(ValueError, match="there are all"):
        dataset(["show", *root, "none"])
    with pytest.raises(ValueError, match="give the --root of a server"):
        episodes(["ls", "--root", str(tmp_path / "nowhere")])
