"""Stands in for `launch` and `launch_ros`, which no wheel provides: actions keep what they are given, nothing runs.

Made for this project's launch files: `launched` does what `ros2 launch FILE name:=value ...` does with them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class Action(SimpleNamespace):
    """An action, a substitution or a condition with its arguments; the first positional one is `name`."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(**({"name": given[0]} if given else {}) | named)
        self.given = given


class Context:
    """What a launch knows while it runs."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.launch_configurations = dict(word.split(":=", 1) for word in argv)


class Share:
    """Folder of the package, with `launch` in it."""

    def __init__(self, package: str) -> None:
        self.path = Path(__file__).parents[2]


class Join:
    """A path of parts."""

    def __init__(self, parts: list[Any]) -> None:
        self.path = Path(*(getattr(part, "path", part) for part in parts))

    def perform(self, context: Context) -> str:
        """Return it as text."""
        return str(self.path)


def kind(name: str) -> type[Action]:
    return type(name, (Action,), {})


def modules() -> dict[str, ModuleType]:
    """The modules by name, with as much in them as the launch files import."""
    contents: dict[str, dict[str, Any]] = {
        "launch": {"LaunchContext": Context, "LaunchDescription": list},
        "launch.logging": {"get_logger": logging.getLogger},
        "launch.actions": {
            name: kind(name)
            for name in ("DeclareLaunchArgument", "IncludeLaunchDescription", "OpaqueFunction", "Shutdown")
        },
        "launch.substitutions": {"PathJoinSubstitution": Join},
        "launch_ros": {},
        "launch_ros.actions": {name: kind(name) for name in ("Node", "SetRemap")},
        "launch_ros.substitutions": {"FindPackageShare": Share},
    }
    made = {name: ModuleType(name) for name in contents}
    for name, content in contents.items():
        vars(made[name]).update(content, __path__=[])
    made["launch"].logging = made["launch.logging"]  # type: ignore[attr-defined]
    return made


@contextmanager
def installed() -> Iterator[None]:
    """Let the launch files import these modules."""
    made = modules()
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def load(path: Path) -> ModuleType:
    """Import a launch file; within `installed`."""
    loader = SourceFileLoader(path.stem.replace(".", "_"), str(path))
    module = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


def launched(path: Path, *argv: str) -> list[Action]:
    """Return the nodes that a launch file starts with these arguments. RuntimeError: it rejects them."""
    context = Context(list(argv))
    with installed():
        return list(_nodes(path, context))


def _nodes(path: Path, context: Context) -> Iterator[Action]:
    for action in load(path).generate_launch_description():
        name = type(action).__name__
        if name == "DeclareLaunchArgument":
            value = context.launch_configurations.setdefault(action.name, action.default_value)
            if value not in getattr(action, "choices", [value]):
                raise RuntimeError(f"{action.name}: {value!r} is not one of {action.choices}")
        elif name == "IncludeLaunchDescription":
            yield from _nodes(Path(action.name.path), context)
        elif name == "OpaqueFunction":
            function: Callable[[Context], list[Action]] = action.function
            yield from function(context)


def parameters(node: Action) -> dict[str, str]:
    """Return a node's parameters by name, as YAML text."""
    words = node.ros_arguments
    rules = [value for word, value in pairwise(words) if word == "-p"]
    return dict(rule.split(":=", 1) for rule in rules)
