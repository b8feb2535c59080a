"""The policies that draw a decision again: from the server's archive of versions, or from a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

from pirl_contract import Contract
from pirl_server.paths import MODELS
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry.versions import Registry

MAX_NAMED = 8


def load_archived(root: Path, name: str, contract: Contract, device: str) -> FlowPolicy:
    """Load a version, or what an alias means, from the archive below a server's root.

    Raises ValueError when it is not there, is damaged or was trained for another robot.
    """
    archive = root / MODELS / "versions"
    if not archive.is_dir():
        raise ValueError(f"version '{name}': there is no archive '{archive}': give the --root of a server")
    registry = Registry(root / MODELS)
    try:
        version = registry.resolve(name)
    except KeyError:
        raise ValueError(f"version '{name}' is not in the archive '{archive}', which has {_held(registry)}") from None
    policy = FlowPolicy.load(version.path, device)
    if policy.version != version.version:
        raise ValueError(f"'{version.path}' was changed: it holds version {policy.version}, not {version.version}")
    return fitting(policy, contract)


def load_folder(folder: Path, contract: Contract, device: str) -> FlowPolicy:
    """Load a checkpoint folder. Raises ValueError when it is none or was trained for another robot."""
    return fitting(FlowPolicy.load(folder, device), contract)


def fitting(policy: FlowPolicy, contract: Contract) -> FlowPolicy:
    """Return the policy. Raises ValueError when its contract is not the one the episode was recorded with."""
    if policy.contract.hash != contract.hash:
        differences = "; ".join(contract.difference(policy.contract))
        raise ValueError(f"version {policy.version} has another contract than the episode (here): {differences}")
    return policy


def _held(registry: Registry) -> str:
    named = [f"{alias} ({version})" for alias, version in sorted(registry.aliases().items())]
    named += [each.version for each in registry.versions()]
    rest = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return ", ".join(named[:MAX_NAMED]) + rest if named else "none"
