"""What the graph inside a `.pt2` file may say: checked before torch builds anything from it.

torch's reader looks operators up by name, evaluates symbolic sizes as Python, writes the graph's names into source code
that it runs, and opens some members with pickle. None of that is safe on a file from elsewhere. So the graph's JSON is
held against a list of what an exported network needs: operators of ATen on tensors and numbers, sizes that are plain
arithmetic, names that are names. Whatever else it has is refused, and what torch does not need (source lines, guards)
is left out.
"""

import ast
import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from modeltree.errors import FormatError

_NAME = re.compile(r"[A-Za-z_]\w{0,199}", re.ASCII)
_PATH = re.compile(r"[\w +:-]+(\.[\w +:-]+)*", re.ASCII)
"""A parameter's or module's: torch writes what is no identifier between quotes, so these do no harm there."""
_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_]\w*)\.(\w+)", re.ASCII)
_SCOPES = frozenset(
    f"torch.ops.higher_order.{name}" for name in ("wrap_with_set_grad_enabled", "wrap_with_autocast")
)  # `with torch.no_grad():` inside a network
_ARITHMETIC = frozenset([
    "add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "abs", "eq", "ne", "lt", "le", "gt",
    "ge", "and_", "or_", "not_", "getitem", "index",
])  # fmt: skip
_SYMBOLIC = frozenset(["sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sum"])
_MATHS = frozenset(["ceil", "floor", "trunc", "sqrt"])
_FUNCTIONS_CALLED = frozenset(
    [*_SCOPES, *(f"_operator.{name}" for name in _ARITHMETIC), *(f"torch.{name}" for name in _SYMBOLIC)]
    + [f"math.{name}" for name in _MATHS]
)
_WORDS = frozenset([
    "mode", "reduction", "approximate", "rounding_mode", "padding", "padding_mode", "equation", "indexing", "ord",
    "interpolation", "side", "norm", "reduce", "driver", "UPLO", "assert_msg",
])  # fmt: skip
"""Arguments of ATen operators that are words; any other text (a file's name) is refused."""
_TYPES = frozenset({"Tensor", "int", "float", "bool", "number", "complex", "SymInt", "SymBool", "Device", "NoneType"})
_CONTAINERS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict"})
_SPECS = frozenset({"user_input", "parameter", "buffer", "tensor_constant"})
_RESULTS = frozenset({"user_output", "buffer_mutation"})
_SYMBOL = re.compile(r"[a-z]+\d{1,6}", re.ASCII)
_FUNCTIONS = frozenset([
    "Symbol", "Integer", "Add", "Mul", "Mod", "FloorDiv", "PythonMod", "CleanDiv", "CeilDiv", "Max", "Min",
    "Rational", "IntTrueDiv", "FloatTrueDiv", "ToFloat", "TruncToInt", "FloorToInt", "CeilToInt", "Identity", "Eq",
    "Ne", "Lt", "Le", "Gt", "Ge", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "And", "Or",
    "Not", "Equality", "Unequality",
])  # fmt: skip
_ASSUMPTIONS = frozenset(["positive", "integer", "nonnegative", "real"])
_EXPRESSION = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp,
               ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.USub)  # fmt: skip
_LONGEST_EXPRESSION = 4000
_LARGEST = 1 << 62
_DEEPEST = 200


def checked_program(program: object, name: str) -> dict[str, Any]:
    """The JSON of an exported program (`models/model.json`), checked, without what torch does not need.

    Raises
    ------
    FormatError : it says something that an exported network has no need of; names the place and what is there.
    """
    fail = functools.partial(_fail, name)
    program = _object(program, "the program", fail)
    module = _object(program.get("graph_module"), "graph_module", fail)
    _check_graph(module.get("graph"), fail, 0)
    _check_signature(_object(module.get("signature"), "signature", fail), fail)
    calls = [
        call for call in _list(module.get("module_call_graph"), "module_call_graph", fail) if call.get("signature")
    ]
    for call in calls:
        _check_call(call, fail)
    ranges = _object(program.get("range_constraints"), "range_constraints", fail)
    for symbol in ranges:
        if not _SYMBOL.fullmatch(symbol):
            fail(f"a size named {symbol!r}")
    module = module | {"module_call_graph": calls, "metadata": {}, "treespec_namedtuple_fields": {}}
    return program | {"graph_module": module, "guards_code": [], "verifiers": ["TRAINING"]}


def _fail(name: str, what: str) -> None:
    raise FormatError(f"{name} has {what}, which no exported network needs: write it again with torch.export.save")


Fail = Callable[[str], None]


def _object(value: Any, what: str, fail: Fail) -> dict[str, Any]:
    if not isinstance(value, dict):
        fail(f"no object as {what}")
    assert isinstance(value, dict)
    return value


def _list(value: Any, what: str, fail: Fail) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        fail(f"no list of objects as {what}")
    assert isinstance(value, list)
    return value


def _check_graph(graph: Any, fail: Fail, depth: int) -> None:
    """A graph: names and sizes everywhere in it, then every node."""
    if depth > 4:
        fail("graphs inside graphs, more than four deep")
    graph = _object(graph, "graph", fail)
    if graph.get("custom_obj_values"):
        fail("objects of its own")
    for names in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"):
        for name in _object(graph.get(names) or {}, names, fail):
            _check_name(name, fail)
    for node in _list(graph.get("nodes"), "nodes", fail):
        _check_node(node, fail, depth)
    for part in ("inputs", "outputs"):
        for argument in _list(graph.get(part), part, fail):
            _check_values(argument, fail, depth)
    for part in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"):
        _check_values(graph.get(part) or {}, fail, depth)


def _check_name(name: Any, fail: Fail) -> None:
    if not isinstance(name, str) or not (name == "" or _NAME.fullmatch(name)):
        fail(f"a value named {str(name)[:60]!r}")


def _check_node(node: dict[str, Any], fail: Fail, depth: int) -> None:
    """An operator that may be called, and arguments it may be given; keeps of its notes where in the network it is."""
    target = node.get("target")
    words = _allowed_words(target, fail)
    if node.get("name") is not None:
        _check_name(node["name"], fail)
    for given in _list(node.get("inputs"), "inputs", fail):
        name, argument = given.get("name"), given.get("arg")
        _check_name(name, fail)
        if isinstance(argument, dict) and "as_string" in argument:
            if name not in words or len(str(argument["as_string"])) > 200:
                fail(f"text as {name!r} of {target}")
            continue
        _check_values(argument, fail, depth)
    _check_values(node.get("outputs"), fail, depth)
    notes = _object(node.get("metadata") or {}, "metadata", fail)
    stack = notes.get("nn_module_stack")
    node["metadata"] = {"nn_module_stack": stack} if isinstance(stack, str) and _stack(stack) else {}


def _stack(text: str) -> bool:
    """Whether notes on modules have the form that torch takes apart: `key,path,type` between semicolons."""
    return len(text) < 10_000 and all(
        re.fullmatch(r"[\w.@ +:-]+,[\w.@ +:-]*,[\w.]+", item, re.ASCII) for item in text.split(";")
    )


def _allowed_words(target: Any, fail: Fail) -> frozenset[str]:
    """The arguments of an operator that are words; refuses an operator that is not on the list."""
    if isinstance(target, str):
        if (matched := _ATEN.fullmatch(target)) is not None:
            if _harmless(matched[1], matched[2]):
                return _WORDS
        elif target in _FUNCTIONS_CALLED:
            return frozenset()
    fail(f"the operator {str(target)[:80]!r}")
    raise AssertionError


@functools.cache
def _harmless(name: str, overload: str) -> bool:
    """Whether an ATen operator takes and gives tensors and numbers alone (`from_file` and `save` do not)."""
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():
        return False
    schema = getattr(packet, overload)._schema
    return all(_plain(argument.type, argument.name) for argument in [*schema.arguments, *schema.returns])


def _plain(kind: Any, name: str) -> bool:
    text = re.sub(r"(Optional|List)\[|\]|\?", "", str(kind.str() if hasattr(kind, "str") else kind))
    text = text.replace("[", "")
    if text in ("str", "string"):
        return name in _WORDS
    return all(part in _TYPES or part in _ALIASES for part in re.split(r"[,\s]+", text) if part)


_ALIASES = frozenset({"Scalar", "ScalarType", "Layout", "MemoryFormat", "Generator", "Device", "t"})


def _check_values(value: Any, fail: Fail, depth: int, level: int = 0) -> None:
    """Names, texts, sizes and graphs anywhere inside an argument or a description of a tensor."""
    if level > _DEEPEST:
        fail("values too deep in each other")
    if isinstance(value, list):
        for item in value:
            _check_values(item, fail, depth, level + 1)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if (
            key in ("as_string", "as_strings", "as_custom_obj", "as_operator", "as_nested_tensors")
            and inner is not None
        ):
            fail(f"{key.removeprefix('as_').replace('_', ' ')} {str(inner)[:60]!r} among its values")
        elif key == "as_graph":
            inner = _object(inner, "graph", fail)
            _check_name(inner.get("name"), fail)
            _check_graph(inner.get("graph"), fail, depth + 1)
        elif key in ("name", "as_name", "graph_name"):
            _check_name(inner, fail)
        elif key == "expr_str":
            _check_expression(inner, fail)
        elif key == "device":
            if inner is not None and _object(inner, "device", fail).get("type") != "cpu":
                fail(f"a tensor on the device {str(inner.get('type'))[:40]!r}")
        elif isinstance(inner, str) and key not in ("type", "as_name"):
            fail(f"text as {key!r}")
        else:
            _check_values(inner, fail, depth, level + 1)


def _check_expression(text: Any, fail: Fail) -> None:
    """A size as sympy writes it: symbols, whole numbers, sums, products, quotients."""
    try:
        if not isinstance(text, str) or len(text) > _LONGEST_EXPRESSION:
            raise SyntaxError
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        nodes = []
    if not nodes or not all(_arithmetic(node) for node in nodes):
        fail(f"the size {str(text)[:60]!r}")


def _arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.keyword):
        return node.arg in _ASSUMPTIONS and isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool)
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _SYMBOL.fullmatch(node.value) is not None
        return isinstance(node.value, int) and abs(node.value) < _LARGEST
    return isinstance(node, _EXPRESSION)


def _check_signature(signature: dict[str, Any], fail: Fail) -> None:
    """What goes in and comes out: tensors of the user, parameters, buffers and constants."""
    for spec in _list(signature.get("input_specs"), "input_specs", fail):
        ((kind, inner),) = spec.items() if len(spec) == 1 else [("", {})]
        if kind not in _SPECS:
            fail(f"an input of the kind {kind!r}")
        _check_paths(inner, fail)
        if kind == "user_input" and "as_tensor" not in _object(inner.get("arg"), "input", fail):
            fail("an input of the user that is no tensor")
    for spec in _list(signature.get("output_specs"), "output_specs", fail):
        ((kind, inner),) = spec.items() if len(spec) == 1 else [("", {})]
        if kind not in _RESULTS:
            fail(f"an output of the kind {kind!r}")
        _check_paths(inner, fail)


def _check_paths(inner: Any, fail: Fail) -> None:
    for key, value in _object(inner, "specification", fail).items():
        if key == "arg":
            _check_values(value, fail, 0)
        elif isinstance(value, str) and not _PATH.fullmatch(value):
            fail(f"a parameter named {value[:60]!r}")


def _check_call(call: dict[str, Any], fail: Fail) -> None:
    """How the network is called: tuples, lists and dictionaries of tensors."""
    signature = _object(call["signature"], "signature", fail)
    if not isinstance(call.get("fqn"), str) or not (call["fqn"] == "" or _PATH.fullmatch(call["fqn"])):
        fail("a module without a name")
    for part in ("inputs", "outputs"):
        _check_values(signature.get(part), fail, 0)
    for name in signature.get("forward_arg_names") or []:
        _check_name(name, fail)
    for part in ("in_spec", "out_spec"):
        try:
            version, spec = json.loads(signature[part])
        except (KeyError, TypeError, ValueError, RecursionError):
            fail(f"no {part}")
            raise AssertionError from None
        if version != 1 or not all(_container(inner) for inner in _specs(spec)):
            fail(f"{part} {str(spec)[:60]!r}")


def _specs(spec: Any, depth: int = 0) -> Iterator[Any]:
    yield spec
    if isinstance(spec, dict) and depth < 20:
        for child in spec.get("children_spec") or []:
            yield from _specs(child, depth + 1)


def _container(spec: Any) -> bool:
    """A leaf, or a plain container whose keys are names."""
    if not isinstance(spec, dict) or set(spec) != {"type", "context", "children_spec"}:
        return False
    if spec["type"] is None:
        return spec["context"] is None and spec["children_spec"] == []
    if spec["type"] != "builtins.dict":
        return spec["type"] in _CONTAINERS and spec["context"] == "null"
    try:
        keys = json.loads(spec["context"])
    except (TypeError, ValueError):
        return False
    return isinstance(keys, list) and all(isinstance(key, str) and _NAME.fullmatch(key) for key in keys)
