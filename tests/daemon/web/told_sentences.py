"""What the daemon says as a text alone, read out of its sources: `python -m tests.daemon.web.told_sentences` writes it.

Reasons, refusals, answers and alarms stand where they are made. The page knows them again by their English text, of
which this makes the table: `daemon/web/told_sentences.json`.
"""

import ast
import json
import re
from collections.abc import Iterator

from spheroidd.daemon.web.words import SENTENCES
from tests.places import ROOT

FILE = ROOT / "daemon/web" / SENTENCES
ROOMS = (
    *(f"acquisition/{name}" for name in ("disk", "focus", "sources", "store")),
    *(f"daemon/{name}" for name in ("catalog", "config", "launch", "monitoring", "pipeline", "scoring", "service")),
    *(f"daemon/{name}" for name in ("reconstruction", "system", "web")),
    *(f"inference/{name}" for name in ("preprocessing", "reconstruction", "segmentation")),
    "protocols",
)
ELSEWHERE = {  # other parts of the table, SQL, words of files, and what stands in the terminal alone
    *("phrases.py", "result_columns.py", "faults.py", "page.py", "plate_view.py", "openapi.py", "metrics.py"),
    *("schema.py", "statements.py", "views.py", "dose.py", "role_words.py", "columns.py", "words.py"),
    *("demo.py", "demo_directory.py", "support_bundle.py", "alarm_test.py", "audit_trail.py", "audit_verification.py"),
    *("log_reader.py", "live_table.py", "service_unit.py", "status.py"),
}
FOR_PROGRAMS = {"tell", "exception", "info", "warning", "debug", "query", "execute", "compile", "getLogger", "phrase"}
FOR_PROGRAMS |= {"print", "echo", "Field", "Path", "Thread"}
_BRACES = re.compile(r"\{\w+\}")
_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|FROM|WHERE|PRAGMA|VALUES|UNION|JOIN)\b")
_CODE = re.compile(r"""<|="|\$\.|\w\(\w+\.\w+|\\\\|%[sd]|\(\?|= :\w|; charset=|\) \* |\w\[\w+[,\[]|^_|^\('""")
LEAST = 6  # letters of its own, for a sentence to be known by them
_AROUND = " ,;:"  # of a part of a sentence: the page takes it away as well


def sentences() -> list[str]:
    """Every sentence of the sources with its values in braces, sorted."""
    found = set[str]()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                found.update(raised(tree), () if path.name in ELSEWHERE else _written(tree))
    return sorted(found)


def raised(tree: ast.Module) -> Iterator[str]:
    """What is written into an error, or into the end of a stack; but "{name} is {value}" could be anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.search("Error$|^Ending$|^Done$|^_by_order$", _called(node)):
            for given in (*node.args, *(one.value for one in node.keywords if one.arg != "where")):
                text = _template(given).strip(_AROUND) if _is_text(given) else ""
                if " " in text and len(re.findall("[A-Za-z]", _BRACES.sub("", text))) >= LEAST:
                    yield text


def _written(tree: ast.Module) -> Iterator[str]:
    """All that reads as a sentence, or as a part of one, wherever it stands: it may be told later."""
    for node in _texts(tree):
        text = _template(node).strip(_AROUND)
        own = _BRACES.sub(" ", text)
        is_told = " " in text and re.search("[a-z]{4}", own) and not _SQL.search(own) and not _CODE.search(own)
        if is_told and "\n" not in text and not own.lstrip()[:1].isupper():
            yield text


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _texts(node: ast.AST) -> Iterator[ast.expr]:
    """The outermost texts below a node, and those in their braces; no docstrings, nothing for programs alone."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Call) and _called(node) in FOR_PROGRAMS:
        return
    if isinstance(node, ast.expr) and _is_text(node):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from (one for one in _texts(child) if not (_is_text(node) and isinstance(child, ast.Constant)))


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and (_is_text(node.left) or _is_text(node.right))
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _template(node: ast.expr) -> str:
    """A text with each of its values in braces, by the name that it has in the code; two of one name are numbered."""
    names = dict[str, str]()  # by the code that makes the value

    def part(one: ast.expr) -> str:
        if isinstance(one, ast.JoinedStr):
            return "".join(map(part, one.values))
        if isinstance(one, ast.BinOp) and _is_text(one):
            return part(one.left) + part(one.right)
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            return one.value
        value = one.value if isinstance(one, ast.FormattedValue) else one
        name = _name(value)
        known = list(names.values())
        free = next(f"{name}{n or ''}" for n in (0, *range(2, 100)) if f"{name}{n or ''}" not in known)
        return f"{{{names.setdefault(ast.unparse(value), free)}}}"

    return part(node)


def _name(value: ast.expr) -> str:
    """What a value is called."""
    match value:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name.strip("_").lower()
        case ast.Call(args=[ast.Attribute() | ast.Name() | ast.Subscript() as first, *_]):
            return _name(first)
        case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.BinOp(left=inner):
            return _name(inner)
    return "value"


if __name__ == "__main__":
    FILE.write_text(json.dumps(sentences(), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
