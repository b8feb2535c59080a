"""Matches what a dataset has with the robot's contract: entries and cameras by name, sizes, rate and ranges.

Nothing is taken by position or converted unless a user says so: another order or unit raises no error later, and moves
the arm wrong. `LEFT_OUT` as the target of a rename or a camera leaves something out.

Shape letters: E entries of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, Field
from pirl_server.config.interchange import ImportSettings

LEFT_OUT = "-"
RATE_TOLERANCE = 1e-3
"""share by which the rates may differ: stamps are rounded"""
SHOWN = 12
"""names that an error lists"""


def pairs(words: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=NAME texts by the first. Raises ValueError for a name that is given twice."""
    found: dict[str, str] = {}
    for word in words:
        name, _, target = word.partition("=")
        if name in found:
            raise ValueError(f"{flag} {word}: '{name}' is given twice")
        found[name] = target
    return found


def match_entries(
    kind: str, names: Sequence[str] | None, width: int, fields: Sequence[Field], settings: ImportSettings
) -> NDArray[np.int64]:
    """Positions [E] in the dataset's vector of the contract's entries, in the contract's order.

    Raises ValueError that lists what does not match, and the fix.
    """
    wanted = [field.name for field in fields]
    if settings.positional:
        if width != len(wanted):
            raise ValueError(f"{kind} has {width} entries, the contract {len(wanted)}: --positional needs as many")
        return np.arange(width)
    if names is None:
        raise ValueError(
            f"the data does not name the {width} entries of the {kind}; if they are the contract's, in its order"
            f" ({_shown(wanted)}), say so with --positional"
        )
    if len(names) != width or len(set(names)) != width:
        raise ValueError(f"{kind} has {width} entries and the names {_shown(names)}: each entry needs its own name")
    renames = pairs(settings.rename, "--rename")
    called = [renames.get(name, name) for name in names]
    missing = [name for name in wanted if name not in called]
    spare = [name for name, target in zip(names, called) if target not in wanted and target != LEFT_OUT]
    if missing or spare:
        raise ValueError(
            f"{kind}: the contract's {_shown(missing) or 'entries'} {'is' if len(missing) == 1 else 'are'}"
            f" {'not in the data' if missing else 'all there'}, the data's {_shown(spare) or 'entries'}"
            f" {'not in the contract' if spare else 'are all used'}: correct the contract, or --rename DATA=CONTRACT,"
            f" --rename DATA={LEFT_OUT} to leave one out"
        )
    twice = next((name for name in wanted if called.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{kind}: two entries of the data are '{twice}': correct --rename")
    return np.array([called.index(name) for name in wanted], np.int64)


def check_renames(known: Sequence[str], settings: ImportSettings) -> None:
    """Raise ValueError for a rename of an entry that the data has not."""
    for name in pairs(settings.rename, "--rename"):
        if name not in known:
            raise ValueError(f"--rename {name}: the data's entries are {_shown(known)}")


def match_cameras(
    sizes: Mapping[str, tuple[int, int]], contract: Contract, settings: ImportSettings, prefix: str
) -> dict[str, str]:
    """Camera of the contract -> key of the dataset. `sizes` are height and width by key.

    A key feeds the camera of its own name, without the prefix, unless a user chose another. Raises ValueError for a
    camera without images, images without a camera, and another size: images are not resized.
    """
    chosen = pairs(settings.camera, "--camera")
    if unknown := [key for key in chosen if key not in sizes and prefix + key not in sizes]:
        raise ValueError(f"--camera {unknown[0]}: the data's images are {_shown(list(sizes)) or 'none'}")
    names = [camera.name for camera in contract.cameras]
    found: dict[str, str] = {}
    for key in sizes:
        short = key.removeprefix(prefix)
        name = chosen.get(key, chosen.get(short, short))
        if name == LEFT_OUT:
            continue
        if name not in names or name in found:
            why = "feeds two cameras" if name in found else "is no camera of the contract"
            raise ValueError(
                f"'{key}' of the data: '{name}' {why} ({_shown(names) or 'it has none'}): choose with --camera"
                f" {short}=CAMERA, or leave it out with --camera {short}={LEFT_OUT}"
            )
        found[name] = key
    for camera in contract.cameras:
        if camera.name not in found:
            raise ValueError(
                f"camera '{camera.name}' of the contract has no images in the data ({_shown(list(sizes)) or 'none'}):"
                f" choose with --camera KEY={camera.name}"
            )
        height, width = sizes[found[camera.name]]
        if (height, width) != (camera.height, camera.width):
            raise ValueError(
                f"'{found[camera.name]}' is {height}x{width}, camera '{camera.name}' of the contract"
                f" {camera.height}x{camera.width}: images are not resized; correct the contract"
            )
    return found


def check_rate(fps: float, contract: Contract) -> None:
    """Raise ValueError when the dataset runs at another rate than the contract."""
    if abs(fps - contract.rate_hz) > RATE_TOLERANCE * contract.rate_hz:
        raise ValueError(
            f"the data has {fps:g} frames per second, the contract's rate is {contract.rate_hz:g} Hz: a step would last"
            " another time; correct the contract, or resample the data"
        )


def contract_of(given: Contract | None, own: Contract | None) -> Contract:
    """The contract to import with. Raises ValueError when there is none, or two that differ."""
    if given is None and own is None:
        raise ValueError(
            "the data does not say what the robot is: give its contract with --contract FILE; `pirl robot check PROFILE"
            " --contract FILE` writes one"
        )
    if given is not None and own is not None and (difference := own.difference(given)):
        raise ValueError(
            f"the data was exported under another contract than --contract: {difference[0]}; leave --contract out, or"
            " import as demonstrations with --without-calls"
        )
    found = given or own
    assert found is not None
    return found


def dataset_names(names: Any) -> list[str] | None:
    """Names of the entries of a vector, of the forms in use; None: there are none.

    Raises ValueError for a form that could mean several things.
    """
    if names is None or names == []:
        return None
    if isinstance(names, dict):
        if len(names) == 1 and isinstance(inner := next(iter(names.values())), list):
            return [str(each) for each in inner]
        places = list(names.values())
        if all(isinstance(place, int) for place in places) and sorted(places) == list(range(len(places))):
            return sorted(names, key=lambda name: int(names[name]))
        raise ValueError(f"names {str(names)[:200]} are neither a list nor one list by a name")
    if isinstance(names, list) and all(isinstance(each, str) for each in names):
        return list(names)
    raise ValueError(f"names {str(names)[:200]} are not a list of texts")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more
