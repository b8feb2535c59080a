"""A Panda that renders fast: the installed arm with its visual meshes decimated, made at first use and cached.

The stock arm has 122,000 triangles and a software renderer spends nine tenths of an image on them. Collision shapes,
joints and inertias stay the installed ones, so the physics is unchanged.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

TRIANGLES_PER_LINK = 300
_MIN_TRIANGLES = 12
"""of one coloured part of a link, so that no small part vanishes"""
_URDF = "panda_v2.urdf"


def use_light_arm() -> None:
    """Make ManiSkill build its Panda from the light arm in this process.

    The robot's uid stays "panda": ManiSkill chooses base pose and start posture by it, a new name would be misplaced.
    """
    from mani_skill.agents.robots import Panda

    Panda.urdf_path = str(light_arm_urdf())


def light_arm_urdf() -> Path:
    """Return the light arm's URDF, building it (about a second) if the cache lacks it."""
    folder = _cache_folder()
    if not (folder / _URDF).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Built aside and renamed: several workers may come here at once.
        building = Path(tempfile.mkdtemp(dir=folder.parent))
        _build(building)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / _URDF).exists():
                raise
            shutil.rmtree(building)
    return folder / _URDF


def _cache_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # The URDF names the installed collision meshes, so another installation needs another copy.
    place = f"{zlib.crc32(str(_installed().parent).encode()):x}"
    return cache / "pirl" / f"panda-{version('mani-skill')}-{TRIANGLES_PER_LINK}-{place}"


def _installed() -> Path:
    from mani_skill import PACKAGE_ASSET_DIR

    return Path(PACKAGE_ASSET_DIR) / "robots" / "panda" / _URDF


def _build(folder: Path) -> None:
    installed = _installed()
    tree = ElementTree.parse(installed)
    for visual in tree.iterfind(".//visual/geometry/mesh"):
        source = installed.parent / visual.attrib["filename"]
        if not (folder / source.name).exists():
            _decimate(source).export(folder / source.name)
        visual.set("filename", source.name)
    for collision in tree.iterfind(".//collision/geometry/mesh"):
        collision.set("filename", str(installed.parent / collision.attrib["filename"]))
    shutil.copy(installed.with_suffix(".srdf"), folder)
    tree.write(folder / _URDF)


def _decimate(source: Path) -> Any:
    import trimesh

    parts: Any = trimesh.load_scene(source).dump()
    share = TRIANGLES_PER_LINK / sum(len(part.faces) for part in parts)
    return trimesh.Scene([_simplified(part, max(_MIN_TRIANGLES, int(len(part.faces) * share))) for part in parts])


def _simplified(part: Any, triangles: int) -> Any:
    if len(part.faces) <= triangles:
        return part
    # The files split vertices along every edge of a normal or texture: unmerged, the part would fall into single faces.
    part.merge_vertices(merge_norm=True, merge_tex=True)
    light = part.simplify_quadric_decimation(face_count=triangles)
    light.visual = type(part.visual)(material=part.visual.material)
    return light
