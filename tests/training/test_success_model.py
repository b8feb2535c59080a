"""A success model: learnt from last images by a job, measured on others, kept, and read back."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import completed
from seen_success import LOOKING, SIDE, save_backbone, seen_episode

from pirl_contract import Camera
from pirl_server import job_main
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.jobs import parse_spec
from pirl_server.config.success import SuccessConfig, SuccessModel
from pirl_server.episodes.datasets import content_hash
from pirl_server.episodes.proposal_decisions import decide
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, SUCCESS_MODELS
from pirl_server.registry.success_models import CARD, HEAD, SuccessModels, version_of
from pirl_server.training.progress import Printed
from pirl_server.training.success import commands, measures, success_job
from pirl_server.training.success.backbone import Source, open_backbone
from pirl_server.training.success.final_frames import choose, frames, split
from pirl_server.training.success.learn import learn
from pirl_server.training.success.propose import propose
from pirl_server.training.success.success_job import backbone_source
from pirl_server.training.success.success_judge import open_judge

LABELLED = 120
UNLABELLED = range(2000, 2020)
CONFIG = SuccessConfig(steps=200, grid=8)


class Quiet(Printed):
    def progress(self, done: int, total: int, message: str) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's root with episodes that a model can learn from, some that it must leave out, and a backbone."""
    root = tmp_path_factory.mktemp("success")
    store = EpisodeStore(root / EPISODES)
    for number in range(LABELLED):
        store.write(seen_episode(number, number % 2 == 0))
    for number in UNLABELLED:
        store.write(seen_episode(number, number % 2 == 0, labelled=False))
    store.write(seen_episode(1001, True, sees=False))
    store.write(seen_episode(1002, True, dry_run=True))
    guessed = seen_episode(1003, True)
    store.write(replace(guessed, info=replace(guessed.info, label_source="classifier")))
    save_backbone(root / "exchange" / "vit")
    return root


@pytest.fixture(scope="module")
def ended(root: Path) -> Path:
    """The job ran."""
    spec = parse_spec({
        "kind": "success_model", "task": "squares", "backbone": "vit", "config": {"steps": 200, "accuracy": 0.7},
        "propose": {},
    })  # fmt: skip
    job = root / "jobs" / "job_1"
    job.mkdir(parents=True)
    (job / "spec.json").write_text(json.dumps(asdict(spec)))
    before = signal.getsignal(signal.SIGTERM)
    job_main.run(root, job, root / "exchange")
    signal.signal(signal.SIGTERM, before)  # a job's process takes it over
    return job


def test_it_learns_what_the_images_show(root: Path, ended: Path) -> None:
    result = json.loads((ended / "result.json").read_text())
    assert result["auc"] > 0.75
    assert 0.55 < result["auc_low"] <= result["auc"] <= result["auc_high"] <= 1.0
    assert (result["episodes"], result["successes"], result["failures"]) == (LABELLED, 60, 60)
    assert (result["learnt"], result["calibration"], result["test"]) == (60, 30, 30)
    assert result["left_out"] == {
        "unlabelled": 20, "dry runs": 1, "labelled by a classifier": 1, "without a final observation": 1
    }  # fmt: skip
    events = [json.loads(line) for line in (ended / "events.jsonl").read_text().splitlines()]
    losses = [each["data"]["loss"] for each in events if each["type"] == "metrics"]
    assert losses[-1] < 0.5 * losses[0]


def test_with_shuffled_labels_it_learns_nothing(root: Path, tmp_path: Path) -> None:
    """Negative control: the same episodes with other labels."""
    store, draw = EpisodeStore(shutil.copytree(root / EPISODES, tmp_path / EPISODES)), np.random.default_rng(5)
    for each in store.list():
        if each.success is not None:
            store.label(each.id, bool(draw.random() < 0.5), "operator")
    spec = SuccessModel(task="squares", backbone="vit", config=CONFIG)
    found = learn(spec, Source("vit", str(root / "exchange" / "vit")), store, tmp_path / "out", Quiet())
    assert abs(found["auc"] - 0.5) < 0.2
    assert found["auc_low"] <= 0.5
    assert SuccessModels(tmp_path / "models").add(tmp_path / "out").threshold is None


def test_what_was_kept_judges_as_what_was_measured(root: Path, ended: Path) -> None:
    result, store = json.loads((ended / "result.json").read_text()), EpisodeStore(root / EPISODES)
    models = SuccessModels(root / SUCCESS_MODELS)
    card = models.get(result["version"])
    assert models.get("latest") == card == models.list()[0][0]
    spec = SuccessModel(task="squares", backbone="vit")
    chosen = choose(store, spec)
    judge = open_judge(models, card)
    probabilities = np.concatenate([judge.probabilities(part) for part in frames(store, chosen)])
    outcomes = np.array([each.success for each in chosen.used])
    _, _, test = split(chosen.used, 0.25, 0.25)
    assert measures.auc(probabilities[test], outcomes[test]) == pytest.approx(result["auc"])
    assert measures.calibration_error(probabilities[test], outcomes[test]) == pytest.approx(
        result["calibration_error"], abs=1e-6
    )
    assert card.lineage["episodes_sha256"] == chosen.sha256 == content_hash(chosen.used)
    assert (card.contract_hash, card.cameras, card.job) == (LOOKING.hash, ("base",), "job_1")
    names = {path.suffix for path in (root / SUCCESS_MODELS).rglob("*") if path.is_file()}
    assert names == {".json", ".safetensors"}, "nothing that is executed on reading"


def test_proposals_are_no_labels_until_a_person_accepts_them(root: Path, ended: Path, tmp_path: Path) -> None:
    result = json.loads((ended / "result.json").read_text())
    assert 0 < result["proposed"] == result["proposed_success"] + result["proposed_failure"] <= len(UNLABELLED)
    assert result["not_proposed"].pop("labelled") == LABELLED + 3
    assert result["proposed"] + result["not_proposed"].get("below the model's threshold", 0) == len(UNLABELLED)
    store = EpisodeStore(root / EPISODES)
    proposed = store.proposals.ids("open")
    right = [store.proposals.get(each).success is (int(each, 16) % 2 == 0) for each in proposed]
    assert np.mean(right) > 0.6
    threshold = result["threshold"]
    assert all(store.proposals.get(each).confidence >= threshold for each in proposed)
    chosen = choose(store, SuccessModel(task="squares", backbone="vit"))
    assert chosen.left_out["unlabelled"] == len(UNLABELLED), "not even a success model learns from them"
    assert not {each.id for each in chosen.frozen} & set(proposed)
    assert {store.open(each).info.success for each in proposed} == {None}
    copied = EpisodeStore(shutil.copytree(root / EPISODES, tmp_path / EPISODES))
    decide(copied, proposed[0], "accept", "ada")
    learnable = choose(copied, SuccessModel(task="squares", backbone="vit"))
    assert {each.id for each in learnable.frozen} & set(proposed) == {proposed[0]}  # negative control


def test_a_model_proposes_without_learning_and_leaves_what_people_decided(
    root: Path, ended: Path, tmp_path: Path
) -> None:
    store = EpisodeStore(shutil.copytree(root / EPISODES, tmp_path / EPISODES))
    shutil.copytree(root / SUCCESS_MODELS, tmp_path / SUCCESS_MODELS)
    rejected, accepted, *_ = before = store.proposals.ids("open")
    decide(store, rejected, "reject", "ada")
    decide(store, accepted, "accept", "ada")
    spec = SuccessModel(task="squares", model="latest", propose=EpisodeSelection())
    found = success_job.run(spec, tmp_path, tmp_path / "job", None, Quiet())
    assert found["proposed"] == len(before) - 2
    assert found["not_proposed"]["a person decided on an earlier proposal"] == 1
    assert store.proposals.ids("rejected") == [rejected]
    assert store.proposals.ids("accepted") == [accepted]
    few = success_job.run(replace(spec, propose=EpisodeSelection(limit=3)), tmp_path, tmp_path / "job", None, Quiet())
    assert few["proposed"] + few["not_proposed"].get("below the model's threshold", 0) == 3
    assert commands.propose(["--root", str(tmp_path), "--limit", "3"]) == 0
    with pytest.raises(ValueError, match="no success model 'absent': there are"):
        success_job.run(replace(spec, model="absent"), tmp_path, tmp_path / "job", None, Quiet())


def test_a_model_that_is_not_reliable_proposes_nothing(root: Path, ended: Path) -> None:
    models, store = SuccessModels(root / SUCCESS_MODELS), EpisodeStore(root / EPISODES)
    card = models.get("latest")
    judge = open_judge(models, card)
    with pytest.raises(ValueError, match="not reliable enough"):
        propose(store, judge, replace(card, threshold=None), EpisodeSelection(), Quiet())
    other = replace(card, instructions=("something else",))
    assert propose(store, judge, other, EpisodeSelection(limit=400), Quiet()).left_out.keys() == {
        "labelled", "with an instruction that the model did not learn from"
    }  # fmt: skip


def test_a_changed_file_is_found(root: Path, ended: Path, tmp_path: Path) -> None:
    version = json.loads((ended / "result.json").read_text())["version"]
    copy = Path(shutil.copytree(root / SUCCESS_MODELS, tmp_path / "copy"))
    models = SuccessModels(copy)
    (backbone,) = (copy / "backbones").iterdir()
    weights = backbone / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ValueError, match="was changed"):
        open_judge(models, models.get(version))
    card = copy / "versions" / version / CARD
    card.write_text(card.read_text().replace('"threshold": ', '"threshold":  0.5 + '))
    assert set(models.list()[1]) == {version}
    shutil.copy(root / SUCCESS_MODELS / "versions" / version / CARD, card)
    assert version_of(card.parent) == version
    card.with_name(HEAD).write_bytes(b"")
    with pytest.raises(ValueError, match="was changed"):
        models.get(version)
    with pytest.raises(KeyError):
        models.get("../../episodes")


def test_the_backbone_learns_too_where_it_may(root: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, train="all", steps=5, grid=4, min_episodes=4)
    spec = SuccessModel(task="squares", backbone="vit", config=config)
    source = Source("vit", str(root / "exchange" / "vit"))
    found = [learn(spec, source, EpisodeStore(root / EPISODES), tmp_path / name, Quiet()) for name in "ab"]
    assert found[0] == found[1], "the seed decides everything"
    models = SuccessModels(tmp_path / "models")
    card = models.add(tmp_path / "a")
    before = open_backbone(source, 4)[0].state_dict()
    after = open_judge(models, card).backbone.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", ["vit", "siglip", "dinov2", "resnet"])
def test_image_models_of_several_families_are_read(kind: str, tmp_path: Path) -> None:
    """Their features say where in the image something is, at its edges as well."""
    folder = save_backbone(tmp_path / kind, kind)
    backbone, source = open_backbone(Source(kind, str(folder)), 4)
    images = np.full((2, SIDE, 2 * SIDE, 3), 100, np.uint8)
    images[1, :4, :4] = 255
    features = backbone.features(images)
    assert features.shape[:2] == (2, 16)
    assert source.revision == ""
    change = (features[1] - features[0]).norm(dim=1)
    assert change[0] > change.median() > 0.0


def test_what_is_no_whole_image_model_is_rejected(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_backbone(tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "pooler" in name]:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    open_backbone(Source("vit", str(folder)), 4)  # its features don't depend on those
    lacking = sorted(name for name in weights if name.endswith("weight"))[0]
    del weights[lacking]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="'backbone' 'vit' lacks 1 weights"):
        open_backbone(Source("vit", str(folder)), 4)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="can't be read as an image model"):
        open_backbone(Source("vit", str(folder)), 4)


def test_a_backbone_is_a_folder_below_the_exchange_folder_or_a_name_on_the_hub(root: Path) -> None:
    exchange = root / "exchange"
    assert backbone_source("vit", exchange) == Source("vit", str((exchange / "vit").resolve()))
    assert backbone_source("org/vit", exchange) == Source("org/vit", "org/vit")
    for name in ("../exchange/vit/..", str(exchange / "vit"), "absent", ".", "../x", "a/b/c"):
        with pytest.raises(ValueError, match="'backbone'"):
            backbone_source(name, exchange)
    with pytest.raises(ValueError, match="--exchange FOLDER"):
        backbone_source("vit", None)


def test_parts_of_a_split_share_nothing_and_stay_as_the_log_grows(root: Path) -> None:
    chosen = choose(EpisodeStore(root / EPISODES), SuccessModel(task="squares", backbone="vit"))
    frozen = list(chosen.frozen)
    limited = SuccessModel(task="squares", backbone="vit", select=EpisodeSelection(limit=5))
    five = choose(EpisodeStore(root / EPISODES), limited)
    assert [each.id for each in five.frozen] == [each.id for each in frozen[:5]], "unlabelled ones don't count"
    few, many = split(frozen[:100], 0.2, 0.3), split(frozen, 0.2, 0.3)
    assert sorted(np.concatenate(many).tolist()) == list(range(len(frozen)))
    for part in many:
        outcomes = [frozen[number].success for number in part]
        assert abs(outcomes.count(True) - outcomes.count(False)) <= 2
    stayed = {frozen[number].id for number in few[2]} & {frozen[number].id for number in many[2]}
    assert len(stayed) > 0.6 * len(few[2])


def test_too_few_episodes_are_named_with_what_was_left_out(root: Path, tmp_path: Path) -> None:
    spec = SuccessModel(task="squares", backbone="vit", config=replace(CONFIG, min_episodes=100))
    source = Source("vit", str(root / "exchange" / "vit"))
    with pytest.raises(ValueError, match=r"61 successes and 60 failures .* asks for 100 of each.* 20 unlabelled"):
        learn(spec, source, EpisodeStore(root / EPISODES), tmp_path / "out", Quiet())
    dry = learn(replace(spec, dry_run=True), source, EpisodeStore(root / EPISODES), tmp_path / "out", Quiet())
    assert dry["encoding_s"] > 0.0
    assert not (tmp_path / "out").exists()
    assert (dry["dry_run"], dry["episodes"]) == (True, LABELLED + 1)  # that it lacks its last image is not known yet


def test_episodes_of_another_robot_are_left_out(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / EPISODES)
    store.write(seen_episode(1, True))
    made = seen_episode(2, False)
    other = replace(LOOKING, cameras=(Camera("side", SIDE, SIDE),))
    calls = replace(made.calls, images={"side": made.calls.images["base"]})
    assert made.final is not None
    final = replace(made.final, images={"side": made.final.images["base"]})
    store.write(replace(made, info=replace(made.info, contract=other), calls=calls, final=final))
    chosen = choose(store, SuccessModel(task="squares", backbone="vit"))
    assert sum(len(part.ids) for part in frames(store, chosen)) == 1
    assert chosen.left_out == {"of another contract": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "a\nb"}, "'backbone' must match pattern"),
        ({"select": {"label": "unlabelled"}}, "learns from labelled episodes"),
        ({"dataset": "d", "select": {"limit": 3}}, "leave out select"),
        ({"backbone": None}, "give a backbone to learn a success model, or a model"),
        ({"model": "v"}, "give a backbone to learn a success model, or a model"),
        ({"backbone": None, "model": "v"}, "say with propose for which"),
        ({"propose": {"label": "success"}}, "labels are proposed for unlabelled episodes"),
        ({"propose": {"robot": ["a"]}}, "'propose.robot' is not known; did you mean robots"),
        ({"config": {"test_share": 0.5, "calibration_share": 0.5}}, "less than a tenth"),
        ({"config": {"stepz": 1}}, "did you mean steps"),
        ({"config": {"accuracy": 0.2}}, "'config.accuracy' must be greater than or equal to 0.5"),
    ],
)
def test_a_wrong_request_names_the_field(changes: dict[str, Any], words: str) -> None:
    spec = {"kind": "success_model", "task": "squares", "backbone": "vit"}
    parse_spec(spec)
    with pytest.raises(ValueError, match=words):
        parse_spec(spec | changes)


def test_no_server_and_no_other_job_imports_transformers() -> None:
    code = "import sys, pirl_server.job_main\nprint(*(name in sys.modules for name in ('torch', 'transformers')))"
    assert completed([sys.executable, "-c", code], 120.0, check=True).stdout.split() == ["True", "False"]
