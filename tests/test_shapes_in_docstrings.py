"""Who passes an array reads in the docstring which shape it must have."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeltree", "transforms", "compile", "runtime", "nas")
ARRAY = re.compile(r"\b(?:np\.ndarray|torch\.Tensor)\b")
SHAPE = re.compile(
    r"\((?:\*?\w+(?: [-+*] \w+)?|\.\.\.),[^()]*\)"  # (n,), (n, *shape), (B, N + 1)
    r"|\bscalar|\bbroadcast|[Aa]ny shape|`\w+`'s shape"
    r"|\b(?:See|As) `"  # what is said at the interface
)


def functions_that_take_arrays() -> Iterator[tuple[str, str]]:
    """(where, what is said of shapes: the docstring and that of the class) of the public ones."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
            for owner in (tree, *classes):
                about = ast.get_docstring(owner) or "" if isinstance(owner, ast.ClassDef) else ""
                for node in owner.body:
                    if isinstance(node, ast.FunctionDef) and node.name[0] != "_" and takes_array(node):
                        where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                        yield where, f"{ast.get_docstring(node) or ''}\n{about}"


def takes_array(node: ast.FunctionDef) -> bool:
    if any(ast.unparse(one).endswith("overload") for one in node.decorator_list):
        return False
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return any(one.annotation is not None and ARRAY.search(ast.unparse(one.annotation)) for one in arguments)


def test_public_functions_that_take_arrays_say_their_shapes():
    known = dict(functions_that_take_arrays())
    assert len(known) > 150
    assert [where for where, said in known.items() if not SHAPE.search(said)] == []


def test_a_function_that_says_no_shape_would_be_noticed():
    assert not SHAPE.search("The mean of `x`, in percent (see Wang 2020).")
    assert SHAPE.search("x : (n, c, h, w)")
    assert SHAPE.search("(actions,), bool")
