"""What in the documents of the API would break a client of the last tag: `make breaking`, with Python and git alone.

What counts as breaking, and what does not, is told in versions.md.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

Node = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
VERBS = ("get", "put", "post", "patch", "delete")
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
# Words of JSON Schema that our documents do not use: what they say is not understood here.
OTHERS = ("allOf", "oneOf", "not", "if", "const", "multipleOf", "prefixItems", "patternProperties")
WORDS = re.compile(r"\(\?:(\w+(?:\|\w+)*)\)")  # In a pattern, some words to choose from.


def breaking_changes(old: Node, new: Node, *, today: date) -> list[str]:
    """Compare two OpenAPI documents; an operation may be gone when the day has come that was announced for it."""
    before, after = _operations(old), _operations(new)
    found = []
    for name, operation in before.items():
        if name in after:
            found += [f"{name}: {change}" for change in _of_operation(operation, after[name])]
        elif not (operation.get("deprecated") and operation.get("x-sunset", "9999") <= f"{today}"):
            found.append(f"{name}: is gone")
    return found


def _operations(document: Node) -> dict[str, Node]:
    """Return every operation by its name, with its path's parameters, and with what it refers to in place."""
    return {
        f"{verb.upper()} {path}": _whole(document, {"security": document.get("security", [{}]), **item[verb]})
        | {"parameters": _whole(document, [*item.get("parameters", []), *item[verb].get("parameters", [])])}
        for path, item in document.get("paths", {}).items()
        for verb in VERBS
        if verb in item
    }


def _whole(document: Node, node: Any, within: tuple[str, ...] = ()) -> Any:
    """Put what a reference refers to in its place, but not within itself."""
    if isinstance(node, list):
        return [_whole(document, inner, within) for inner in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return {name: _whole(document, inner, within) for name, inner in node.items()}
    if reference in within:
        return node
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return _whole(document, found, (*within, reference))


def _of_operation(old: Node, new: Node) -> Iterator[str]:
    before, after = _parameters(old), _parameters(new)
    for name in before.keys() - after.keys():
        yield f"{name} is gone"
    for name, parameter in after.items():
        if parameter.get("required") and not before.get(name, {}).get("required"):
            yield f"{name} is now required"
        if name in before:
            yield from _misfits(before[name]["schema"], parameter["schema"], name)
    ways = new["security"] or [{}]
    for way in old["security"] or [{}]:
        if way not in ways and {} not in ways:
            yield f"{' and '.join(way) or 'a call of nobody known'} is no longer let in"
    if new.get("x-sunset", "9999") < old.get("x-sunset", ""):
        yield f"ends on {new['x-sunset']}, sooner than was announced"
    yield from _of_body(old.get("requestBody", {}), new.get("requestBody", {}))
    for status, answer in old["responses"].items():
        if status in new["responses"]:
            yield from _of_answer(answer, new["responses"][status], f"answer {status}")
        else:
            yield f"answer {status} is gone"


def _parameters(operation: Node) -> dict[str, Node]:
    return {f"{parameter['in']} parameter {parameter['name']}": parameter for parameter in operation["parameters"]}


def _of_body(old: Node, new: Node) -> Iterator[str]:
    if new.get("required") and not old.get("required"):
        yield "a body is now required"
    yield from _of_content(old, new, "body", is_answer=False)


def _of_answer(old: Node, new: Node, where: str) -> Iterator[str]:
    for name, header in old.get("headers", {}).items():
        if name in new.get("headers", {}):
            yield from _misfits(header["schema"], new["headers"][name]["schema"], f"{where} {name}", is_answer=True)
        else:
            yield f"{where} {name} is gone"
    yield from _of_content(old, new, where, is_answer=True)


def _of_content(old: Node, new: Node, where: str, *, is_answer: bool) -> Iterator[str]:
    for kind, media in old.get("content", {}).items():
        if kind in new.get("content", {}):
            after = new["content"][kind].get("schema", {})
            yield from _misfits(media.get("schema", {}), after, where, is_answer=is_answer)
        else:
            yield f"{where} as {kind} is gone"


def _misfits(old: Node, new: Node, where: str, *, is_answer: bool = False) -> Iterator[str]:
    """Yield why what was right to send may now be refused; or of an answer, why it may be what nobody reckons with."""
    inner, outer = (new, old) if is_answer else (old, new)
    if inner == outer:
        return
    if "anyOf" in inner or "anyOf" in outer:
        for one in inner.get("anyOf", [inner]):
            pairs = [(other, one) if is_answer else (one, other) for other in outer.get("anyOf", [outer])]
            if all(any(_misfits(*pair, where, is_answer=is_answer)) for pair in pairs):
                yield f"{where} {'may now' if is_answer else 'may no longer'} be such a {one.get('type', 'value')}"
        return
    if changed := [name for name in (*OTHERS, "$ref") if inner.get(name) != outer.get(name)]:
        yield f"{where} has another {', '.join(changed)}, which is not understood here"
    if not _types(inner) <= _types(outer):
        yield f"{where} was {_named(old)} and is now {_named(new)}"
        return
    yield from (f"{where} has another {name}" for name in _narrower(inner, outer))
    yield from _of_members(old, new, where, is_answer=is_answer)
    if "items" in outer:
        yield from _misfits(old.get("items", {}), new.get("items", {}), f"{where}[]", is_answer=is_answer)


def _of_members(old: Node, new: Node, where: str, *, is_answer: bool) -> Iterator[str]:
    """Compare objects; a member that is new in an answer is no misfit."""
    inner, outer = (new, old) if is_answer else (old, new)
    members, rest = new.get("properties", {}), new.get("additionalProperties", True)
    for name, member in old.get("properties", {}).items():
        if name in members:
            yield from _misfits(member, members[name], f"{where}.{name}", is_answer=is_answer)
        elif is_answer or rest is False:
            yield f"{where}.{name} is gone"
    for name in {*outer.get("required", [])} - {*inner.get("required", [])}:
        if name in members:
            yield f"{where}.{name} {'may now be missing' if is_answer else 'is now required'}"
    former = old.get("additionalProperties", True)
    if isinstance(former, dict) and isinstance(rest, dict):
        yield from _misfits(former, rest, f"{where}.*", is_answer=is_answer)
    elif not is_answer and former is not False and rest is not True:
        yield f"{where} takes no longer any member"
    if not is_answer and "propertyNames" in new:
        yield from _misfits(old.get("propertyNames", {}), new["propertyNames"], f"{where}, names")


def _types(schema: Node) -> set[str]:
    """Return the types that a value may have; a whole number is a number."""
    given = schema.get("type", ["array", "boolean", "integer", "null", "number", "object", "string"])
    types = {given} if isinstance(given, str) else {*given}
    return types | {"integer"} if "number" in types else types


def _named(schema: Node) -> str:
    given = schema.get("type", "anything")
    return given if isinstance(given, str) else " or ".join(given)


def _narrower(inner: Node, outer: Node) -> Iterator[str]:
    """Yield which words of the outer schema leave out what the inner one lets in."""
    if "enum" in outer and not ("enum" in inner and all(value in outer["enum"] for value in inner["enum"])):
        yield "enum"
    yield from (name for name in LEAST if name in outer and inner.get(name, float("-inf")) < outer[name])
    yield from (name for name in MOST if name in outer and inner.get(name, float("inf")) > outer[name])
    if "format" in outer and inner.get("format") != outer["format"]:
        yield "format"
    if "pattern" in outer and not _is_covered(inner.get("pattern", ""), outer["pattern"]):
        yield "pattern"
    if outer.get("uniqueItems") and not inner.get("uniqueItems"):
        yield "uniqueItems"


def _is_covered(inner: str, outer: str) -> bool:
    """Tell whether a pattern is another with no more words to choose from; what else one may cover is not looked at."""
    words = zip(WORDS.findall(inner), WORDS.findall(outer), strict=False)
    is_alike = WORDS.sub("(?:)", inner) == WORDS.sub("(?:)", outer)
    return is_alike and all({*some.split("|")} <= {*more.split("|")} for some, more in words)


def main(root: Path = ROOT) -> int:
    """Compare with the last tag; with the one before it as well, where the last is of this very commit."""
    tags = dict.fromkeys(_git(root, "describe", "--tags", "--abbrev=0", start) for start in ("HEAD", "HEAD^"))
    found = []
    for tag in filter(None, tags):
        for name in _git(root, "ls-tree", "--name-only", tag, "docs/").split():
            if re.fullmatch(r"docs/openapi\w*\.json", name):
                old, path = json.loads(_git(root, "show", f"{tag}:{name}")), root / name
                new = json.loads(path.read_text("utf-8")) if path.exists() else {}
                found += [f"{name}: {change}, since {tag}" for change in breaking_changes(old, new, today=date.today())]
        print(f"Compared with {tag}.")
    if not any(tags):
        print("There is no tag yet with which to compare the documents of the API.")
    print("\n".join(sorted(found)), end="\n" if found else "")
    return 1 if found else 0


def _git(root: Path, *arguments: str) -> str:
    """Return what a command of git says, or nothing where it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
