"""Ways to damage a checkpoint folder. Each takes it and a random generator, and leaves something to be refused.

One that happens to leave the folder valid is an error of its own: the fuzz test demands a refusal every time.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from foreign import EMBEDDING, HEAD, shard, write_json
from safetensors.torch import load_file, save_file

Damage = Callable[[Path, random.Random], object]
FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
TENSORS = dict[str, torch.Tensor]


def on_tensors(change: Callable[[TENSORS, random.Random], object]) -> Damage:
    def damage(folder: Path, dice: random.Random) -> None:
        tensors = {name: each.clone() for name, each in load_file(folder / FILE).items()}
        change(tensors, dice)
        save_file({name: each.contiguous() for name, each in tensors.items()}, folder / FILE, {"format": "pt"})

    return damage


def pick(tensors: TENSORS, dice: random.Random) -> str:
    """A tensor the policy reads: one that it never reads may be absent."""
    names = [name for name in tensors if "gemma_expert.lm_head" not in name]
    return dice.choice(sorted(names))


def rename(tensors: TENSORS, dice: random.Random) -> None:
    name = pick(tensors, dice)
    at = dice.randrange(len(name) + 1)
    tensors[name[:at] + dice.choice("xQ.9") + name[at:]] = tensors.pop(name)


def swap_names(tensors: TENSORS, dice: random.Random) -> None:
    """Two tensors of different shapes change places."""
    one = pick(tensors, dice)
    other = pick({name: each for name, each in tensors.items() if each.shape != tensors[one].shape}, dice)
    tensors[one], tensors[other] = tensors[other], tensors[one]


def transpose(tensors: TENSORS, dice: random.Random) -> None:
    name = pick({name: each for name, each in tensors.items() if each.dim() == 2 and len(each) != each.shape[1]}, dice)
    tensors[name] = tensors[name].T.contiguous()


def reshape(tensors: TENSORS, dice: random.Random) -> None:
    name = pick(tensors, dice)
    each = tensors[name]
    kinds = [
        each[None],
        each[:-1] if len(each) > 1 else each.repeat(2, *[1] * (each.dim() - 1)),
        torch.cat([each, each]),
    ]
    tensors[name] = dice.choice([*kinds, each.flatten() if each.dim() > 1 else each[:, None], each[:0]])


def retype(tensors: TENSORS, dice: random.Random) -> None:
    name = pick(tensors, dice)
    kinds = [torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool, torch.float64, torch.float8_e4m3fn]
    tensors[name] = tensors[name].to(dice.choice(kinds))


def not_finite(tensors: TENSORS, dice: random.Random) -> None:
    name = dice.choice(sorted(tensors))
    flat = tensors[name].view(-1)
    flat[dice.randrange(len(flat))] = dice.choice([torch.nan, torch.inf, -torch.inf])


def other_embedding(tensors: TENSORS, dice: random.Random) -> None:
    head = next(name for name in tensors if name.endswith(HEAD))
    other = tensors[head].clone()
    other.view(-1)[dice.randrange(other.numel())] += dice.choice([1e-3, 1.0, -5.0])
    tensors[head.removesuffix(HEAD) + EMBEDDING] = other


def twice(tensors: TENSORS, dice: random.Random) -> None:
    """A weight under its name and under the one that older files gave it."""
    name = dice.choice(sorted(name for name in tensors if "paligemma.model.vision_tower." in name))
    tensors[name.replace("paligemma.model.vision_tower.", "paligemma.vision_tower.")] = tensors[name].clone()


def other_family(tensors: TENSORS, dice: random.Random) -> None:
    """One half of what tells the families apart, from the other family."""
    prefix = "model." if all(name.startswith("model.") for name in tensors) else ""
    state, norm = prefix + "state_proj.weight", prefix + "paligemma_with_expert.gemma_expert.model.norm."
    if state in tensors:
        change = dice.choice(
            [lambda: tensors.pop(state), lambda: tensors.update({norm + "dense.weight": torch.ones(96, 32)})]
        )
    else:
        change = dice.choice(
            [lambda: tensors.pop(norm + "dense.weight"), lambda: tensors.update({state: torch.ones(32, 7)})]
        )
    change()


TENSOR_DAMAGE: dict[str, Damage] = {
    "renamed key": on_tensors(rename),
    "missing key": on_tensors(lambda tensors, dice: tensors.pop(pick(tensors, dice))),
    "extra key": on_tensors(lambda tensors, dice: tensors.update({f"more.{dice.random()}": torch.ones(3)})),
    "extra layer": on_tensors(
        lambda tensors, dice: tensors.update(
            {name.replace("layers.1.", f"layers.{dice.choice([2, 7, 10**18])}."): each.clone()
             for name, each in [*tensors.items()] if "gemma_expert.model.layers.1." in name}
        )
    ),
    "swapped names": on_tensors(swap_names),
    "transposed": on_tensors(transpose),
    "wrong shape": on_tensors(reshape),
    "wrong type": on_tensors(retype),
    "not finite": on_tensors(not_finite),
    "two embeddings": on_tensors(other_embedding),
    "twice": on_tensors(twice),
    "other family": on_tensors(other_family),
}  # fmt: skip


def truncate(folder: Path, dice: random.Random) -> None:
    content = (folder / FILE).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    cut = dice.choice([dice.randrange(header), dice.randrange(len(content)), len(content) - 1, 0])
    (folder / FILE).write_bytes(content[:cut])


def header_length(folder: Path, dice: random.Random) -> None:
    content = bytearray((folder / FILE).read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[:8] = dice.choice([2**63, 2**64 - 1, length + 8, length - 9, 0, 10**9]).to_bytes(8, "little")
    (folder / FILE).write_bytes(bytes(content))


def header_json(folder: Path, dice: random.Random) -> None:
    """Offsets, shapes and types that don't fit the numbers behind them."""
    content = (folder / FILE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header[dice.choice(sorted(name for name in header if name != "__metadata__"))]
    key = dice.choice(["dtype", "shape", "data_offsets"])
    entry[key] = dice.choice([None, "F32x", -1, [2**63, 2**63], [-4, 4], [0, 2**62], {}, [], [[1]], 1e300])
    text = json.dumps(header).encode()
    (folder / FILE).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


FILE_DAMAGE: dict[str, Damage] = {
    "truncated": truncate,
    "header length": header_length,
    "header": header_json,
    "no file": lambda folder, dice: (folder / FILE).unlink(),
    "a folder": lambda folder, dice: ((folder / FILE).unlink(), (folder / FILE).mkdir()),
    "garbage": lambda folder, dice: (folder / FILE).write_bytes(dice.randbytes(dice.randrange(4000))),
}


def leaving_link(folder: Path, dice: random.Random) -> None:
    """A file of the folder is moved out of it and linked back."""
    names = [FILE, "config.json"] + [path.name for path in folder.glob("policy_*")]
    path = folder / dice.choice(names)
    outside = folder.parent / "outside"
    os.replace(path, outside)
    path.symlink_to(dice.choice([outside, Path("..") / "outside"]))


def looping_link(folder: Path, dice: random.Random) -> None:
    (folder / FILE).unlink()
    (folder / FILE).symlink_to(folder / dice.choice([FILE, "nothing"]))


def on_index(change: Callable[[dict[str, Any], random.Random], object]) -> Damage:
    def damage(folder: Path, dice: random.Random) -> None:
        shard(folder)
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"], dice)
        write_json(folder / INDEX, index)

    return damage


def point_at(*places: object) -> Damage:
    return on_index(lambda names, dice: names.update({dice.choice(sorted(names)): dice.choice(places)}))


def point_all_outside(folder: Path, dice: random.Random) -> None:
    """A shard that is there and whole, in the parent folder."""
    shard(folder)
    index = json.loads((folder / INDEX).read_text())
    name = dice.choice(sorted(set(index["weight_map"].values())))
    os.replace(folder / name, folder.parent / name)
    there = dice.choice(
        [f"../{name}", str(folder.parent / name), f"./../{name}", f"{folder.name}/../../{name}", f"..\\{name}"]
    )
    write_json(
        folder / INDEX,
        {"weight_map": {key: there if home == name else home for key, home in index["weight_map"].items()}},
    )


def lose_shard(folder: Path, dice: random.Random) -> None:
    shard(folder)
    dice.choice(sorted(folder.glob("model-*"))).unlink()


def double_key(folder: Path, dice: random.Random) -> None:
    shard(folder)
    one, other = (load_file(path) for path in sorted(folder.glob("model-*")))
    name = dice.choice(sorted(one))
    save_file({**other, name: one[name].clone()}, sorted(folder.glob("model-*"))[1])


def both_forms(folder: Path, dice: random.Random) -> None:
    content = (folder / FILE).read_bytes()
    shard(folder)
    (folder / FILE).write_bytes(content)


PATH_DAMAGE: dict[str, Damage] = {
    "link to outside": leaving_link,
    "link to nowhere": looping_link,
    "index points elsewhere": point_at(
        "..", ".", "", "/etc/passwd", "../x", "a/b", "x\\y", "\0", "nothing.safetensors"
    ),
    "index of wrong types": point_at(None, 3, ["x"], {}, True),
    "index points outside": point_all_outside,
    "index lacks a key": on_index(lambda names, dice: names.pop(dice.choice(sorted(names)))),
    "index has a key more": on_index(lambda names, dice: names.update({"more": next(iter(names.values()))})),
    "index swaps shards": on_index(
        lambda names, dice: names.update({(key := dice.choice(sorted(names))): min(set(names.values()) - {names[key]})})
    ),
    "index is garbage": lambda folder, dice: (
        shard(folder),
        (folder / INDEX).write_bytes(dice.choice([b"", b"[]", b"{", b"\xff", b'{"weight_map": []}', b"[" * 200_000])),
    ),
    "shard lost": lose_shard,
    "key in two shards": double_key,
    "file and index": both_forms,
}
