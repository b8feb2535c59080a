"""Drives lerobot 0.6.1 in its own environment, without a network: `python lerobot_peer.py VERB FOLDER`.

Prints one JSON object. `make` records a small dataset; `open` reads every frame; `train` takes ten steps of a small
ACT;
`append` resumes it and records an episode.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_CACHE": os.environ["PEER_CACHE"],
    "HF_HOME": os.environ["PEER_CACHE"],
}


def _blocked(*_: Any, **__: Any) -> Any:
    raise OSError("no network in this test")


socket.socket.connect = _blocked  # type: ignore[method-assign]
socket.getaddrinfo = _blocked

import numpy as np  # noqa: E402
import torch  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

FPS, SIDE, STATES, ACTIONS = 10, 64, 3, 2
TASKS = ("wipe the table", "close the drawer")


def dataset(folder: str, **settings: Any) -> LeRobotDataset:
    return LeRobotDataset("local/none", root=folder, video_backend="pyav", **settings)


def open_all(folder: str) -> dict[str, Any]:
    """Every frame; images as digests of their pixels, or with `video` their means."""
    found = dataset(folder)
    frames = []
    for number in range(len(found)):
        item = found[number]
        row: dict[str, Any] = {"task": item["task"]}
        for name, value in item.items():
            if not isinstance(value, torch.Tensor):
                continue
            if name.startswith("observation.images."):
                pixels = (value * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
                row[name] = hashlib.sha256(pixels.tobytes()).hexdigest()
            else:
                row[name] = value.tolist()
        frames.append(row)
    dtypes = {name: str(value.dtype) for name, value in found[0].items() if isinstance(value, torch.Tensor)}
    stats = {name: {key: np.asarray(value).tolist() for key, value in each.items()}
             for name, each in found.meta.stats.items()}  # fmt: skip
    pad = padded(folder, found.meta.episodes[0]["length"] - 1, found.fps)
    return {
        "padded": pad,
        "frames": frames,
        "episodes": found.num_episodes,
        "dtypes": dtypes,
        "stats": stats,
        "fps": found.fps,
    }


def padded(folder: str, last: int, fps: int) -> list[Any]:
    """What a chunk of two actions from an episode's last frame on holds, and which of them lerobot made up."""
    item = dataset(folder, delta_timestamps={"action": [0.0, 1 / fps]})[last]
    return [item["action"].tolist(), item["action_is_pad"].tolist()]


def train(folder: str) -> dict[str, Any]:
    """Ten steps of a small ACT on shuffled batches; losses."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.factory import make_policy, make_pre_post_processors

    torch.manual_seed(0)
    meta = dataset(folder).meta
    config = ACTConfig(
        chunk_size=4, n_action_steps=4, dim_model=16, n_heads=2, dim_feedforward=32, n_encoder_layers=1,
        n_vae_encoder_layers=1, latent_dim=4, pretrained_backbone_weights=None, device="cpu", push_to_hub=False,
    )  # fmt: skip
    policy = make_policy(config, ds_meta=meta)
    before, _ = make_pre_post_processors(config, dataset_stats=meta.stats)
    frames = dataset(folder, delta_timestamps={"action": [step / meta.fps for step in range(4)]})
    loader = torch.utils.data.DataLoader(frames, batch_size=4, shuffle=True)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    losses: list[float] = []
    policy.train()
    while len(losses) < 10:
        for batch in loader:
            loss, _ = policy.forward(before(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
            if len(losses) == 10:
                break
    return {"losses": losses}


def append(folder: str) -> dict[str, Any]:
    """Resume the dataset and record one more episode, of a new task."""
    found = LeRobotDataset.resume("local/none", root=folder, video_backend="pyav")
    for number in range(5):
        frame: dict[str, Any] = {"task": "a new task"}
        for name, feature in found.meta.features.items():
            if name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
                continue
            shape = tuple(feature["shape"])
            if feature["dtype"] in ("image", "video"):
                frame[name] = np.full(shape, 40 * number, np.uint8)
            else:
                frame[name] = np.full(shape, number % 2, feature["dtype"])
        found.add_frame(frame)
    found.save_episode()
    found.finalize()
    return {"episodes": found.num_episodes}


def make(folder: str) -> dict[str, Any]:
    """Two episodes of two tasks, with images as `PEER_IMAGES` says; PEER_FINALIZE=no: ended without it."""
    dtype, side = os.environ["PEER_IMAGES"], int(os.environ.get("PEER_SIDE", SIDE))
    features = {
        "observation.state": {"dtype": "float32", "shape": (STATES,), "names": ["b.pos", "a.pos", "c.pos"]},
        "action": {"dtype": "float32", "shape": (ACTIONS,), "names": ["a.pos", "b.pos"]},
        "observation.images.top": {"dtype": dtype, "shape": (side, side, 3), "names": ["height", "width", "channels"]},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    found = LeRobotDataset.create(
        "local/none", FPS, features, root=folder, use_videos=dtype == "video", robot_type="so"
    )
    rows = []
    for episode in range(int(os.environ.get("PEER_EPISODES", "2"))):
        count = 6 + episode
        for number in range(count):
            value = 0.1 * episode + 0.01 * number
            frame = {
                "observation.state": np.array([value, -value, 2 * value], np.float32),
                "action": np.array([value + 0.5, value - 0.5], np.float32),
                "observation.images.top": np.full((side, side, 3), 20 * episode + 10 * number, np.uint8),
                "next.success": np.array([number == count - 1 and episode == 0]),
                "task": TASKS[episode % 2],
            }
            found.add_frame(dict(frame))
            rows.append([episode, number, value])
        found.save_episode()
    if os.environ.get("PEER_FINALIZE") == "no":
        sys.stdout.write(json.dumps({"rows": rows}))
        sys.stdout.flush()
        if os.environ.get("PEER_END") == "kill":
            os.kill(os.getpid(), 9)
        found.writer.close_writer()  # what a normal end of the interpreter leaves: data whole, no table of episodes
        os._exit(0)
    found.finalize()
    return {"rows": rows}


if __name__ == "__main__":
    verb, where = sys.argv[1], sys.argv[2]
    said = {"open": open_all, "train": train, "append": append, "make": make}[verb](where)
    print(json.dumps(said))
    assert Path(where).is_dir()
