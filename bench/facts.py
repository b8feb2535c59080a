"""How is this tree cut? Files, their length, the length of functions, bare Any, small modules with one importer.

    python bench/facts.py [--quick] [--json]

Counts the four packages without generated stubs and `__init__.py`. `bare Any`: functions of `serving` and `rpc` with a
parameter or a result that is nothing but `Any`. `small modules with one importer`: under 60 lines; each is a seam, an
equation, or has tests of its own. `--quick` changes nothing, it is fast anyway.
"""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
PACKAGES = {"pirl_contract": "msg", "pirl_ros": "pirl_ros", "pirl_server": "server", "pirl_sim": "sim"}
SMALL = 60


def modules() -> dict[str, Path]:
    """Module name -> its file."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder / package).rglob("*.py"):
            if "_pb2" not in path.name and path.name != "__init__.py":
                found[".".join(path.relative_to(ROOT / folder).with_suffix("").parts)] = path
    return found


def is_bare(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a parameter or the result is `Any`."""
    said = [each.annotation for each in (*function.args.args, *function.args.kwonlyargs)]
    return any(isinstance(each, ast.Name) and each.id == "Any" for each in (*said, function.returns))


def importers(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Module -> the modules that import it, or a name from it."""
    found: dict[str, set[str]] = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for each in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    if each in found and each != name:
                        found[each].add(name)
    return found


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    files = modules()
    trees = {name: ast.parse(path.read_text()) for name, path in files.items()}
    lines = {name: len(path.read_text().splitlines()) for name, path in files.items()}
    functions = [
        (name, node)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = sorted((node.end_lineno or node.lineno) - node.lineno + 1 for _, node in functions)
    wired = [node for name, node in functions if name.startswith(("pirl_server.serving.", "pirl_server.rpc."))]
    known = importers(trees)
    small = sorted(name for name in files if lines[name] < SMALL and len(known[name]) == 1)
    figures = {
        "files": len(files),
        "lines of a file, median": median(lines.values()),
        "lines of a file, longest": max(lines.values()),
        "lines of a function, nine in ten": lengths[9 * len(lengths) // 10],
        "lines of a function, longest": lengths[-1],
        "functions of serving and rpc with a bare Any, %": round(100 * sum(map(is_bare, wired)) / len(wired), 1),
        "small modules with one importer": len(small),
    }
    if options.json:
        print(json.dumps(figures))
        return
    print("\n".join(f"| {name} | {value} |" for name, value in figures.items()))
    print("\n".join(f"{name} ({lines[name]}) <- {next(iter(known[name]))}" for name in small))


if __name__ == "__main__":
    main()
