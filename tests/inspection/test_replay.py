"""Stored decisions drawn again: exactly by their own version, otherwise by another one, and what can't be is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pirl_contract import Alteration
from pirl_server.episodes.schema import Episode
from pirl_server.inspection import replay_report
from pirl_server.inspection.commands import replay as replay_command
from pirl_server.inspection.decision import Overlap, decision_of
from pirl_server.inspection.episode_replay import replay
from pirl_server.inspection.replay import ROUNDING, chunks_of_seeds, reproduce
from pirl_server.inspection.versions import load_archived, load_folder
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import BATCH_SIZES, PolicySample

BASE = Path(__file__).parents[2] / "server/pirl_server/checkpoints/pushcube-base"
HORIZON, EXECUTE, DELAY = 8, 5, 2


@pytest.mark.parametrize("kind", ["plain", "explored", "as_jpeg"])
def test_its_own_version_draws_every_decision_again_bit_for_bit(root, kind, request) -> None:  # type: ignore[no-untyped-def]
    episode: Episode = request.getfixturevalue(kind)
    policy = root.load(root.first)
    results = replay(episode, range(len(episode.calls.step)), {root.first: policy}, None)
    assert [each.recorded.result for each in results] == ["exact"] * 4
    assert {each.decision.explore for each in results} == {kind == "explored"}
    other_seed = replace(results[0].decision, seed=results[0].decision.seed + 1)
    assert reproduce(policy, other_seed).result == "different", "another seed is another chunk"
    other_state = results[1].decision.observation
    assert reproduce(policy, replace(results[0].decision, observation=other_state)).result == "different"


def test_a_continued_chunk_is_found_and_continued_again(root, continued: Episode, request) -> None:  # type: ignore[no-untyped-def]
    """The policy supports both methods, and which was asked for is not stored."""
    (method,) = {"guided", "prefix"} & set(request.node.callspec.params.values())
    policy = root.load(root.first)
    results = replay(continued, range(4), {root.first: policy}, None)
    assert [each.decision.overlap for each in results] == [None, *(Overlap(call, EXECUTE, DELAY) for call in range(3))]
    assert [(each.recorded.result, each.recorded.method) for each in results] == [("exact", None)] + 3 * [
        ("exact", method)
    ]
    assert f"continued call 0 from its action 5 on, 2 given (RTC, {method})" in results[1].notes
    assert not reproduce(policy, replace(results[1].decision, overlap=None)).same, "it does matter"


def test_a_continuation_that_the_episode_does_not_hold_is_named(root, continued: Episode) -> None:  # type: ignore[no-untyped-def]
    """The stored previous chunk is exchanged, as when it was drawn outside of the episode."""
    chunk = continued.calls.chunk.copy()
    chunk[0] += 1.0
    steps = replace(continued.steps, alterations=continued.steps.alterations | np.uint32(Alteration.CONTINUED))
    lost = replace(continued, calls=replace(continued.calls, chunk=chunk), steps=steps)
    (result,) = replay(lost, [1], {root.first: root.load(root.first)}, root.load(root.second))
    assert result.recorded.result == "unknown continuation"
    assert any("previous actions are not stored" in note for note in result.notes)
    assert result.other is not None, "what the other version would do plainly is still shown"


def test_company_in_a_batch_changes_no_more_than_rounding(root, plain: Episode) -> None:  # type: ignore[no-untyped-def]
    """What a decision was drawn with beside it is not stored; of the shipped policy too."""
    decision = decision_of(plain, 0)
    others = [decision.request(seed, False) for seed in range(BATCH_SIZES[-1] - 1)]
    own = decision.request(decision.seed, False)
    policy = root.load(root.first)
    sample = policy.sample_batch([*others, own])[-1]
    assert isinstance(sample, PolicySample)
    found = reproduce(policy, replace(decision, chain=sample.chain, chunk=sample.actions))
    assert found.same
    assert found.largest <= ROUNDING
    another = policy.sample_batch(others[:1])[0]
    assert isinstance(another, PolicySample)
    assert np.abs(sample.chain - another.chain).max() > 1000 * ROUNDING, "a seed changes far more"


def test_the_same_weights_do_not_differ_and_others_do(root, plain: Episode, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    policy, calls = root.load(root.first), range(4)
    same = replay(plain, calls, {root.first: policy}, root.load(root.first), seeds=8)
    assert [each.same_seed for each in same] == [0.0] * 4
    assert not any(each.differs for each in same)
    assert replay_report.most_different(same) == []
    other = replay(plain, calls, {root.first: policy}, root.load(root.second), seeds=8)
    assert all(each.differs for each in other)
    for each in other:
        by_hand = chunks_of_seeds(root.load(root.second), each.decision, range(8, 16), None)
        np.testing.assert_array_equal(each.draws[1], by_hand)
        assert each.apart.between > each.apart.within
    excess = {each.decision.call: each.apart.between - each.apart.within for each in other}
    assert replay_report.most_different(other) == sorted(excess, key=excess.__getitem__, reverse=True)


def test_what_was_altered_and_who_drove_is_said(root, plain: Episode) -> None:  # type: ignore[no-untyped-def]
    (result,) = replay(plain, [0], {}, root.load(root.second))
    assert result.recorded is None
    assert f"version {root.first}, which drew it, could not be loaded: not checked" in result.notes
    assert "1 of 5 executed steps were altered: blended, limit" in result.notes
    assert "steps not driven by the policy: human" in result.notes
    assert result.decision.index.tolist() == [0, 1, 2, 3, 4]
    text = "\n".join(replay_report.lines(plain, [result], root.second))
    assert "stored, other and executed: action 0" in text


def test_a_version_of_another_horizon_is_compared_over_the_shorter(root, plain: Episode) -> None:  # type: ignore[no-untyped-def]
    from toy_arm import toy_policy

    short = toy_policy(3, horizon=4, sees=True, execute_horizon=4)
    (result,) = replay(plain, [1], {root.first: root.load(root.first)}, short)
    assert (result.counted, len(result.other)) == (range(0, 4), 4)
    assert any("has horizon 4, the stored chunk 8" in note for note in result.notes)
    assert json.loads(json.dumps(replay_report.as_json(plain, [result], "short"), allow_nan=False))


def test_a_missing_version_is_an_error_that_names_the_archive(root, plain: Episode) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        ValueError, match=rf"'nowhere' is not in the archive '{root.path}.*has production \({root.second}"
    ):
        load_archived(root.path, "nowhere", plain.info.contract, "cpu")
    with pytest.raises(ValueError, match="there is no archive"):
        load_archived(root.path / "elsewhere", "nowhere", plain.info.contract, "cpu")
    with pytest.raises(ValueError, match="another contract than the episode"):
        load_folder(BASE, plain.info.contract, "cpu")
    assert load_archived(root.path, "production", plain.info.contract, "cpu").version == root.second


def test_a_changed_archive_is_noticed(root, plain: Episode, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from toy_arm import save_toy

    from pirl_server.registry.versions import Registry

    folder = save_toy(tmp_path / "made", 5, horizon=HORIZON, sees=True)
    Registry(tmp_path / "models").add("abcdefabcdef", folder, FlowPolicy.load(folder).contract)
    with pytest.raises(ValueError, match="was changed: it holds version"):
        load_archived(tmp_path, "abcdefabcdef", plain.info.contract, "cpu")


def test_the_command_prints_json_draws_and_says_by_its_status(root, plain, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    root_of = ["--root", str(root.path)]
    assert replay_command([plain.info.id, *root_of]) == 0
    assert "drawn again: 4 exact" in capsys.readouterr().out
    one, several = tmp_path / "one.png", tmp_path / "several.png"
    command = [plain.info.id, *root_of, "--version", "production", "--json", "--plot"]
    assert replay_command([*command, str(one), "--call", "2"]) == 0
    (decision,) = json.loads(capsys.readouterr().out)["decisions"]
    stored = plain.calls.chunk[2].astype(np.float64)
    np.testing.assert_allclose(np.array(decision["stored_chunk"]) + decision["difference"], decision["other_chunk"])
    np.testing.assert_array_equal(decision["stored_chunk"], stored)
    assert replay_command([*command, str(several), "--all"]) == 0
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (one, several))
    with pytest.raises(ValueError, match=r"call 9 of episode .* it has 4"):
        replay_command([plain.info.id, *root_of, "--call", "9"])
    with pytest.raises(ValueError, match="no episode 'x'"):
        replay_command(["x", *root_of])
    with pytest.raises(ValueError, match="has no folder 'episodes'"):
        replay_command(["x", "--root", str(tmp_path)])


def test_the_command_fails_when_a_decision_is_not_what_its_version_draws(root, plain, capsys) -> None:  # type: ignore[no-untyped-def]
    """The episode with another seed, as after a change of the sampler."""
    forged = replace(
        plain, info=replace(plain.info, id="f" * 32), calls=replace(plain.calls, seed=plain.calls.seed + np.uint64(1))
    )
    root.store.write(forged)
    assert replay_command(["f" * 32, "--root", str(root.path)]) == 1
    assert "drawn again: 4 different" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["plain", "explored"])
def test_without_a_chain_the_chunk_is_compared_and_exploration_found(root, kind, request) -> None:  # type: ignore[no-untyped-def]
    """As an episode that was imported from a recording of ROS topics: seed and chunk are all that is known."""
    episode: Episode = request.getfixturevalue(kind)
    calls = episode.calls
    bare = replace(calls, chain=calls.chain[:, :0], sde_index=np.full_like(calls.sde_index, -1))
    results = replay(
        replace(episode, calls=bare), range(4), {root.first: root.load(root.first)}, root.load(root.second)
    )
    assert [each.recorded.result for each in results] == ["exact"] * 4
    assert {each.recorded.explore for each in results} == {kind == "explored"}
    whole = replay(episode, range(4), {}, root.load(root.second))
    for each, other in zip(results, whole):
        np.testing.assert_array_equal(each.other, other.other)


def test_a_demonstration_has_nothing_to_draw_again(root, plain: Episode, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    calls = replace(plain.calls, policy_version=np.full_like(plain.calls.policy_version, -1))
    with pytest.raises(ValueError, match="is an observation of a demonstration: no policy drew it"):
        decision_of(replace(plain, calls=calls), 1)
    root.store.write(replace(plain, calls=calls, info=replace(plain.info, id="e" * 32)))
    with pytest.raises(ValueError, match="has no policy call, as a demonstration"):
        replay_command(["e" * 32, "--root", str(root.path)])
