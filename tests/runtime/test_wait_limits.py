"""Nothing in the runtime waits without a limit, be it for a thread, a process or a peer."""

import ast
from pathlib import Path

import pytest

import runtime

METHODS = {"wait", "join", "result", "exception", "get", "acquire", "communicate"}
"""They wait for ever when they are called with nothing, or with None."""
FUNCTIONS = {"wait": 2, "futures.wait": 2, "as_completed": 2, "select.select": 4, "wait_for": 2, "subprocess.run": 99,
             "subprocess.check_output": 99, "subprocess.check_call": 99, "socket.create_connection": 2}  # fmt: skip
"""They wait for ever with fewer arguments than these and no `timeout`."""
EXECUTORS = {"ThreadPoolExecutor", "ProcessPoolExecutor"}
FILES = sorted(Path(runtime.__file__).parent.rglob("*.py"))


def name_of(function):
    """`a.b.c` of what is called."""
    if isinstance(function, ast.Attribute):
        return f"{name_of(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def may_be_endless(call):
    name, keywords = name_of(call.func), {keyword.arg for keyword in call.keywords}
    owner, _, method = name.rpartition(".")
    no_limit = not call.args or any(isinstance(one, ast.Constant) and one.value is None for one in call.args)
    if isinstance(call.func, ast.Attribute) and method in METHODS and no_limit and not keywords:
        return True
    needed = FUNCTIONS.get(name, FUNCTIONS.get(method, 0) if method in ("wait_for", "as_completed") else 0)
    if needed and len(call.args) < needed and "timeout" not in keywords:
        return True
    return method == "shutdown" and owner.endswith(("threads", "pool", "executor")) and "wait" not in keywords


def endless(tree):
    """(line, call) of what in a module may wait for ever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and may_be_endless(node):
            yield node.lineno, name_of(node.func)
        call = node.context_expr if isinstance(node, ast.withitem) else None
        if isinstance(call, ast.Call) and name_of(call.func).rpartition(".")[2] in EXECUTORS:
            yield call.lineno, "the end of a with statement, which waits for an executor's threads"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FILES[0].parents[1])))
def test_every_wait_of_the_runtime_has_a_limit(file):
    assert list(endless(ast.parse(file.read_text()))) == []


@pytest.mark.parametrize("code", [
    "thread.join()", "event.wait()", "future.result()", "queue.get()", "lock.acquire()", "wait(futures)",
    "process.communicate()", "subprocess.run(argv)", "socket.create_connection(address)", "event.wait(None)",
    "with ThreadPoolExecutor(2) as pool: pass", "condition.wait_for(ready)", "self._threads.shutdown()",
])  # fmt: skip
def test_a_wait_without_a_limit_is_noticed(code):
    assert list(endless(ast.parse(code)))
