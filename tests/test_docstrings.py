"""Public docstrings state shapes and errors, counted in the syntax tree of the four packages.

Public is what has no leading underscore in its own name or its class's; overrides count too, nested functions do not.

- Shapes. Each array (NDArray, Tensor or an alias of ours) that a function takes has its shape in its name (`x_BHD`) or
  in the docstring; one that is returned has no name, so the docstring says it. The docstring holds as many shapes as
  such arrays: brackets (`[J]`, `[N, 3]`) or another's shaped name in backquotes. Fewer do where a word says that one
  stands for several (all, each, both, same) or that none is needed (scalar, elementwise, any shape).
- Legends. Each letter of a shaped argument is explained in the docstring of its file or of its package.
- Errors. Each error class that the body raises by name is named in the docstring of the function or, for a method, of
  its class. Errors of what it calls are not followed. AssertionError and NotImplementedError are bugs, not a contract;
  a REST handler's ProblemError is stated by its route's `responses`.
- Conformance. Each assert of `pirl_contract.conformance`, which strangers inherit, has a message.

This test finds silence; whether the shapes are right is for a reviewer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("msg/pirl_contract", "pirl_ros/pirl_ros", "server/pirl_server", "sim/pirl_sim")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "_pb2" not in path.name]
ARRAYS = {"NDArray", "ndarray", "Tensor", "Tensors", "Array", "Arrays", "Vector", "Image", "Images"}
ARRAYS |= {"Mask", "Double", "Weights"}
MESSAGES = ("pb", "sensor_msgs", "msg")
"""modules whose Image and Tensor are messages"""
SHAPED_NAME = re.compile(r"(?:_|^)([A-Z][A-Za-z0-9]*)$")
SHAPE = re.compile(
    r"\[(?![-0]|low)(?:[^\]]*(?:[A-Z1-9]|\.\.)[^\]]*|\w+(?:, \w+)*)\]"  # neither a range nor prose in brackets
    r"|`\w+_[A-Z]+`"
)
SEVERAL = re.compile(r"\b(all|each|both|same)\b", re.IGNORECASE)
NONE_NEEDED = re.compile(r"\b(scalars?|elementwise|any shape)\b", re.IGNORECASE)
NO_CONTRACT = {"AssertionError", "NotImplementedError", "ProblemError"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
parse = cache(ast.parse)


def public(body: list[ast.stmt], owner: str = "", said: str = "") -> Iterator[tuple[str, str, Function]]:
    """Qualified name, docstring of the class, and node of each public function."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{owner}{node.name}.", ast.get_docstring(node) or "")
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield owner + node.name, said, node


def is_array(annotation: ast.expr | None) -> bool:
    """Whether an annotation names an array type anywhere: also in a tuple, a mapping or a sequence."""
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Attribute) and node.attr in ARRAYS and ast.unparse(node.value) not in MESSAGES:
            return True
        if isinstance(node, ast.Name) and node.id in ARRAYS:
            return True
    return False


def array_arguments(node: Function) -> list[str]:
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return [argument.arg for argument in arguments if is_array(argument.annotation)]


def states_shapes(docstring: str, arguments: list[str], arrays: int) -> bool:
    """Whether a docstring has a shape for this many arrays; the function's own arguments are no statement."""
    if not arrays or NONE_NEEDED.search(docstring):
        return True
    shapes = [shape for shape in SHAPE.findall(docstring) if shape.strip("`") not in arguments]
    return len(shapes) >= arrays or bool(shapes and SEVERAL.search(docstring))


def without_shape(source: str) -> list[str]:
    """Public functions with an array whose shape is neither in a name nor in the docstring."""
    silent = []
    for name, _, node in public(parse(source).body):
        arguments = array_arguments(node)
        arrays = sum(not SHAPED_NAME.search(word) for word in arguments) + is_array(node.returns)
        silent += [name] * (not states_shapes(ast.get_docstring(node) or "", arguments, arrays))
    return silent


def without_legend(source: str, package: str = "") -> list[str]:
    """Letters of shaped arguments that neither the file's docstring nor the package's explains."""
    module = parse(source)
    legend = f"{ast.get_docstring(module) or ''} {package}"
    shaped = [SHAPED_NAME.search(word) for _, _, node in public(module.body) for word in array_arguments(node)]
    letters = {letter for match in shaped if match for letter in match[1] if letter.isupper()}
    return sorted(letter for letter in letters if not re.search(rf"\b{letter}\b", legend))


def raised(node: Function) -> set[str]:
    """Names of the errors that a function's own body raises."""
    nodes = [inner.exc for inner in ast.walk(node) if isinstance(inner, ast.Raise) and inner.exc]
    names = {ast.unparse(error.func if isinstance(error, ast.Call) else error).rpartition(".")[2] for error in nodes}
    return {name for name in names if name.endswith("Error") and name[0].isupper()} - NO_CONTRACT


def without_error(source: str) -> list[str]:
    """Public functions that raise an error which their docstring does not name."""
    silent = []
    for name, said, node in public(parse(source).body):
        words = set(re.findall(r"\w+", f"{said} {ast.get_docstring(node) or ''}"))
        silent += [f"{name}: {error}" for error in sorted(raised(node) - words)]
    return silent


def without_message(source: str) -> list[str]:
    """Asserts, numpy's too, without a message."""
    found = []
    for node in ast.walk(parse(source)):
        silent = isinstance(node, ast.Assert) and node.msg is None
        if isinstance(node, ast.Call) and ".testing.assert_" in ast.unparse(node.func):
            silent = len(node.args) < 3
        found += [ast.unparse(node)] * silent
    return found


def package_docstring(path: Path) -> str:
    return ast.get_docstring(parse((path.parent / "__init__.py").read_text())) or ""


def test_every_array_has_a_shape() -> None:
    gaps = [f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for name in without_shape(path.read_text())]
    assert gaps == []


def test_every_letter_of_a_shape_is_explained() -> None:
    gaps = {str(path.relative_to(ROOT)): without_legend(path.read_text(), package_docstring(path)) for path in SOURCES}
    assert {path: letters for path, letters in gaps.items() if letters} == {}


def test_every_error_is_named() -> None:
    gaps = [f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for name in without_error(path.read_text())]
    assert gaps == []


def test_every_conformance_assert_has_a_message() -> None:
    assert without_message((ROOT / "msg/pirl_contract/conformance.py").read_text()) == []


@pytest.mark.parametrize(
    ("signature", "docstring", "silent"),
    [
        ("x_BHD: Tensor", "Use it.", False),
        ("x: Tensor", "Use it.", True),
        ("x: Tensor", "Use it [B, H].", False),
        ("x: Tensor, y: Tensor", "Use it [B, H].", True),
        ("x: Tensor, y: Tensor", "Use both [B, H].", False),
        ("x: Tensor, y: Tensor", "Use both.", True),
        ("x: Tensor, y: Tensor", "Use them, any shape.", False),
        ("x: Tensor", "Use it, see [the paper].", True),
        ("x: Tensor", "Use it, in [0, 1].", True),
        ("x: dict[str, np.ndarray]", "Use it.", True),
        ("x: pb.Tensor", "Use it.", False),
        ("x_BHD: Tensor", "Return it.", True),
        ("x_BHD: Tensor", "Return as `x_BHD`.", True),
        ("x_BHD: Tensor", "Return as `y_BHD`.", False),
        ("x_BHD: Tensor", "Return [B].", False),
    ],
)
def test_a_silent_shape_is_found(signature: str, docstring: str, silent: bool) -> None:
    returns = "Tensor" if docstring.startswith("Return") else "None"
    source = f'class C:\n    def f(self, {signature}) -> {returns}:\n        """{docstring}"""'
    assert without_shape(source) == ["C.f"] * silent
    assert without_shape(source.replace("def f", "def _f")) == []


def test_a_letter_without_a_legend_is_found() -> None:
    source = '"""B = batch."""\ndef f(x_BHD: Tensor) -> None: ...'
    assert without_legend(source) == ["D", "H"]
    assert without_legend(source, "H = horizon, D = dimensions") == []


def test_a_silent_error_is_found() -> None:
    source = '''def f() -> None:
    """Raises ValueError."""
    if not 1:
        raise errors.BusyError("no")
    raise ValueError
def g() -> None:
    raise NotImplementedError
'''
    assert without_error(source) == ["f: BusyError"]
    assert without_error(source.replace("Raises", "BusyError or")) == []


def test_a_silent_assert_is_found() -> None:
    source = "assert x\nassert y, 'y'\nnp.testing.assert_array_equal(a, b)\nnp.testing.assert_array_equal(a, b, 'c')"
    assert without_message(source) == ["assert x", "np.testing.assert_array_equal(a, b)"]
