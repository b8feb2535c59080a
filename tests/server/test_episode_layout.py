"""The file of an episode: what plain zarr and xarray read of it, and what its own reader finds when a byte changed."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from test_episode_store import make_episode

from pirl_contract import Camera, Observation
from pirl_server.episodes import zarr_archive
from pirl_server.episodes.image_codecs import EncodedImages, ImageCodec, decode_jpeg, encode_jpeg
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.zarr_layout import EpisodeFile, read_group, write_group
from pirl_server.episodes.zip_members import ChangedError

CODEC = ImageCodec("jpeg", 90)


def two_cameras(calls: int = 5, steps: int = 9, jpeg: bool = True) -> Episode:
    """One camera's images raw, the other's, of another size, JPEG; with a final observation."""
    episode, rng = make_episode(calls=calls, steps=steps, size=8), np.random.default_rng(1)
    cameras = (Camera("wrist", 8, 8), Camera("top", 6, 10))
    top = rng.integers(0, 256, (calls, 6, 10, 3), dtype=np.uint8)
    encoded: Any = EncodedImages.of([encode_jpeg(image, CODEC.quality) for image in top], 6, 10, CODEC)
    final = {"wrist": episode.calls.images["wrist"][0], "top": top[0]}
    return replace(
        episode,
        info=replace(episode.info, id="0" * 32, contract=replace(episode.info.contract, cameras=cameras)),
        calls=replace(episode.calls, images=episode.calls.images | {"top": encoded if jpeg else top}),
        final=Observation(final, np.zeros(2, np.float32), episode.info.instruction, episode.info.robot_id),
    )


def arrays(episode: Episode) -> dict[str, np.ndarray[Any, Any]]:
    found = {f"call/{name}": value for name, value in vars(episode.calls).items() if name != "images"}
    found |= {f"step/{name}": value for name, value in vars(episode.steps).items()}
    found |= {f"call/images/{name}": np.asarray(value) for name, value in episode.calls.images.items()}
    if episode.final is not None:
        found |= {f"final/images/{name}": value for name, value in episode.final.images.items()}
        found["final/state"] = episode.final.state
    return found


def assert_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name


@pytest.fixture(params=[2**25, 100], ids=["one file each", "in parts"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zarr_archive, "BLOCK_BYTES", request.param)
    write_group(tmp_path / "episode.zarr.zip", two_cameras())
    return tmp_path / "episode.zarr.zip"


@pytest.mark.parametrize("consolidated", [True, False])
def test_plain_zarr_reads_what_was_written(path: Path, consolidated: bool) -> None:
    expected, attributes = arrays(two_cameras()), two_cameras().info
    del expected["call/images/top"]
    with zarr.storage.ZipStore(path, mode="r") as store:
        group: Any = zarr.open_group(store, mode="r", use_consolidated=consolidated)
        assert_equal({name: group[name][...] for name in expected}, expected)
        assert (group.attrs["schema_version"], group.attrs["instruction"]) == (2, attributes.instruction)
        top = group["call/images/top"]
        assert dict(top.attrs) == {"codec": "jpeg", "quality": 90, "height": 6, "width": 10}
        jpeg, offsets = top["jpeg"][...], top["offsets"][...]
        files = [jpeg[start:end].tobytes() for start, end in pairwise(offsets)]
        members = {name for name, _ in group.members(max_depth=None)}
    assert files == [encode_jpeg(image, 90) for image in np.asarray(two_cameras(jpeg=False).calls.images["top"])]
    jpeg_members = {f"call/images/top/{name}" for name in ("jpeg", "offsets", "crc32c")}
    groups = {"call", "call/images", "call/images/top", "step", "final", "final/images"}
    assert members == expected.keys() | jpeg_members | groups, "nothing else is in the file"


def test_it_is_read_back_whole_and_in_parts(path: Path) -> None:
    expected = arrays(two_cameras())
    assert_equal(arrays(read_group(path)), expected)
    with EpisodeFile(path) as file:
        assert file.info == two_cameras().info
        assert_equal(arrays(file.episode()), expected)
        for name in ("wrist", "top"):
            images, whole = file.images(name), expected[f"call/images/{name}"]
            for rows in (slice(1, 4), slice(0, 0), slice(None, None, 2), np.array([4, 0, 4]), -1, 2):
                np.testing.assert_array_equal(images[rows], whole[rows])
        np.testing.assert_array_equal(file.rows("step/executed", 2, 5), expected["step/executed"][2:5])
        with pytest.raises(IndexError):
            file.images("wrist")[5]


def test_xarray_reads_each_table(path: Path) -> None:
    expected = arrays(two_cameras())
    for group in ("call", "step", "final", "call/images", "final/images"):
        with zarr.storage.ZipStore(path, mode="r") as store, xarray.open_zarr(store, group=group) as data:
            for name, values in data.variables.items():
                np.testing.assert_array_equal(values.to_numpy(), expected[f"{group}/{name}"])
            assert set(data.variables) == {
                name.rpartition("/")[2] for name in expected
                if name.rpartition("/")[0] == group and name != "call/images/top"
            }  # fmt: skip


def test_what_zarr_itself_writes_is_read_too(tmp_path: Path, path: Path) -> None:
    """Chunks, compressors and members of zarr's own choice, in a file that has our metadata."""
    copied, compressed = tmp_path / "copied.zip", tmp_path / "compressed.zip"
    for target, options in ((copied, {"compressors": None}), (compressed, {})):
        with zarr.storage.ZipStore(path, mode="r") as source, zarr.storage.ZipStore(target, mode="w") as store:
            old: Any = zarr.open_group(source, mode="r")
            memory = zarr.storage.MemoryStore()
            options["config"] = {"write_empty_chunks": True}
            new = zarr.create_group(memory, attributes=dict(old.attrs))
            for name, member in old.members(max_depth=None):
                if isinstance(member, zarr.Group):
                    new.require_group(name).attrs.update(dict(member.attrs))
                else:
                    chunks = tuple(max(1, size) for size in member.shape)
                    new.create_array(name, data=member[...], chunks=chunks, **options)
            zarr.consolidate_metadata(memory)
            for name, data in memory._store_dict.items():
                store._set(name, data)
        assert_equal(arrays(read_group(target)), arrays(two_cameras()))


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """Bits of the whole file, and of each part that is read; what is found is nearly all of it."""
    path, rng, found = tmp_path / "episode.zarr.zip", random.Random(0), 0
    write_group(path, two_cameras(steps=40))
    raw, expected = path.read_bytes(), arrays(two_cameras(steps=40))
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    read = [each for each in entries if not each.filename.endswith("/zarr.json")]
    spans = [range(each.header_offset, each.header_offset + 30 + each.file_size) for each in read]
    places = [*rng.sample(range(len(raw)), 200), *(rng.choice(span) for span in spans for _ in range(3))]
    places += rng.sample(range(entries[-1].header_offset, len(raw)), 200)  # the root, and the table of contents
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            read_back = arrays(read_group(path))
        except (ValueError, KeyError, TypeError):
            found += 1
        else:
            assert_equal(read_back, expected)
    assert found > len(places) / 3, "negative control"
    path.write_bytes(raw)
    assert_equal(arrays(read_group(path)), expected)


@pytest.mark.parametrize("camera", ["wrist", "top"])
def test_a_changed_image_is_found_by_the_windows_that_hold_it(tmp_path: Path, camera: str) -> None:
    path, key = tmp_path / "episode.zarr.zip", {"wrist": "wrist/c/0/0/0/0", "top": "top/jpeg/c/0"}[camera]
    write_group(path, two_cameras())
    with EpisodeFile(path) as file, zipfile.ZipFile(path) as archive:
        sizes = file.images(camera).sizes if camera == "top" else np.full(5, 8 * 8 * 3 + 4)
        begin = archive.getinfo(f"call/images/{key}").header_offset + 30 + len(f"call/images/{key}")
    data = bytearray(path.read_bytes())
    data[begin + int(sizes[:2].sum()) + 20] ^= 4  # in the third image
    path.write_bytes(data)
    expected = arrays(two_cameras())[f"call/images/{camera}"]
    with EpisodeFile(path) as file:
        images = file.episode().calls.images[camera]
        np.testing.assert_array_equal(images[:2], expected[:2])
        np.testing.assert_array_equal(images[3:], expected[3:])
        for rows in (slice(0, 3), slice(2, 3), 2, slice(None)):
            with pytest.raises(ChangedError, match=r"2.*changed|changed.*2"):
                images[rows]
    with pytest.raises(ChangedError):
        read_group(path)


def test_a_small_episode_is_two_files_in_a_directory_and_under_100_kib(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    home = (tmp_path / store.write(make_episode(calls=3, steps=7, size=16)).path).parent
    assert sorted(each.name for each in home.iterdir()) == ["MANIFEST.json", "episode.zarr.zip"]
    assert sum(each.stat().st_blocks * 512 for each in [home, *home.iterdir()]) < 100 * 1024


def test_equal_episodes_make_equal_files(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_group(tmp_path / name, two_cameras())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_images_that_are_read_later_are_the_same(tmp_path: Path) -> None:
    store, episode = EpisodeStore(tmp_path), two_cameras()
    summary = store.write(episode)
    now, later = store.open(summary.id), store.open(summary.id, lazily=True)
    assert_equal(arrays(later), arrays(now))
    assert isinstance(now.calls.images["top"], np.ndarray)
    assert not isinstance(later.calls.images["top"], np.ndarray)
    np.testing.assert_array_equal(
        now.calls.images["top"][0], decode_jpeg(encode_jpeg(two_cameras(jpeg=False).calls.images["top"][0], 90), 6, 10)
    )
