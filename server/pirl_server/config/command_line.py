"""Flags and `--set KEY=VALUE` of the commands, derived from the fields of a configuration."""

from __future__ import annotations

import argparse
import types
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pirl_server.config.fields import ConfigT, parse


def parse_flags(parser: argparse.ArgumentParser, kind: type[ConfigT], arguments: Sequence[str], first: str) -> ConfigT:
    """Add a flag per field of `kind`, read the arguments and make the configuration.

    `first` is a field that is given without its name. A bad value raises ValueError in one line that names the flag.
    """
    add_flags(parser, kind, first)
    return read_flags(kind, parser.parse_args(arguments))


def add_flags(parser: Any, kind: type[Any], first: str = "") -> None:
    """Add a flag per field of `kind` to a parser or to a group of one."""
    for name, hint, info in _described(kind):
        default = getattr(kind, name)
        flag = [name] if name == first else ["--" + name.replace("_", "-")]
        options = _options(hint, info) | ({"nargs": "?"} if name == first else {})
        parser.add_argument(*flag, default=default, help=_help(info, default), **options)


def read_flags(kind: type[ConfigT], options: argparse.Namespace) -> ConfigT:
    """Make the configuration from parsed flags. A bad value raises ValueError in one line that names the flag."""
    values = {name: getattr(options, name) for name, _, _ in _described(kind)}
    return parse(kind, values, lambda loc: "--" + str(loc[0]).replace("_", "-"))


def add_settings(parser: argparse.ArgumentParser, *kinds: type[Any]) -> None:
    """Add `--set KEY=VALUE ...` and list the fields of the kinds below the help."""
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields of the list below")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    lines = list[str]()
    for kind in kinds:
        lines.append(f"fields of --set ({kind.__name__}); null is written none:")
        lines += [f"  {name}={_shown(getattr(kind, name))}  [{_range(hint, info)}] {info.description}"
                  for name, hint, info in _described(kind)]  # fmt: skip
    parser.epilog = "\n".join(lines)


def settings(words: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE: a number where it is one, None for `none`. Raises ValueError for another form."""
    return dict(_setting(word) for word in words)


def _setting(word: str) -> tuple[str, str | int | float | None]:
    key, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"'{word}' is not KEY=VALUE")
    for kind in (int, float):
        try:
            return key, kind(text)
        except ValueError:
            continue
    return key, None if text == "none" else text


def _described(kind: Any) -> list[tuple[str, Any, Any]]:
    """Name, type without None, and pydantic's description of each field."""
    hints = get_type_hints(kind)
    return [(field.name, _inner(hints[field.name]), kind.__pydantic_fields__[field.name]) for field in fields(kind)]


def _inner(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = [each for each in get_args(hint) if each is not type(None)]
        return inner
    return hint


def _options(hint: Any, info: Any) -> dict[str, Any]:
    """What argparse needs to know of a field's type."""
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    metavar = (info.json_schema_extra or {}).get("unit")
    named = {"metavar": metavar} if metavar else {}
    if hint in (int, float, str, Path):
        return {"type": hint, **named}
    return {"action": _Append, **named}


class _Append(argparse.Action):
    """Collect the values of a flag that may be repeated, and leave the default as it is."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), value))


def _help(info: Any, default: Any) -> str:
    shown = "" if default in (None, False, ()) else f" (default: {default})"
    return f"{info.description}{shown}".replace("%", "%%")


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _range(hint: Any, info: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(get_args(hint))
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [f"{signs[name]} {bound:g}" for each in info.metadata for name in signs
              if (bound := getattr(each, name, None)) is not None]  # fmt: skip
    unit = (info.json_schema_extra or {}).get("unit")
    return ", ".join([*([unit] if unit else []), *bounds]) or hint.__name__
