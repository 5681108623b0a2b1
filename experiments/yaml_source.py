"""A YAML file as data that remembers its lines, read by YAML 1.2's rules for numbers and booleans.

PyYAML reads ``1e-7`` as text, ``no`` as False and keeps the last of two equal keys without a word; none of
that here.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiments.problems import Problem

Location = tuple[str | int, ...]
_NUMBER_STARTS = list("-+0123456789")
_MOST_NODES = 100_000  # what aliases stand for counted each time: nine of nine of nine ... is no manifest
_REPLACED = (":bool", ":float", ":int", ":timestamp")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the number and boolean forms of YAML 1.2, less those that mislead (``010``)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_REPLACED)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), _NUMBER_STARTS
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:0|[1-9][0-9]*)\.[0-9]*(?:[eE][-+]?[0-9]+)?
              |[-+]?(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+
              |[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?
              |[-+]?\.inf|\.nan)$""",
        re.VERBOSE,
    ),
    [*_NUMBER_STARTS, "."],
)


@dataclass
class Document:
    """What a YAML file says, and where it says it.

    Attributes:
        path: the file.
        data: plain Python values; None where the file is no YAML at all.
        lines: location (keys and list indices from the top) -> line, counted from 1.
        problems: what keeps the file from being read, and duplicate keys.
    """

    path: Path
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, where: Location) -> int | None:
        """The line of a location, or of the nearest thing around it that is in the file."""
        for end in range(len(where), -1, -1):
            if where[:end] in self.lines:
                return self.lines[where[:end]]
        return None


def read_document(path: Path) -> Document:
    """Reads a YAML file; faults are collected in ``problems``.

    Raises:
        OSError: the file cannot be read.
    """
    document = Document(path)
    try:
        loader = _Loader(path.read_bytes().decode("utf-8"))
        _read(loader, document)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        document.problems.append(Problem((), f"not YAML: {error.problem}", line))
    except RecursionError:
        document.problems.append(Problem((), "not YAML that can be read: nested too deeply"))
    except (yaml.YAMLError, ValueError) as error:  # characters that are not UTF-8, or not allowed in YAML
        document.problems.append(Problem((), f"not YAML: {' '.join(str(error).split())}"))
    return document


def _read(loader: _Loader, document: Document) -> None:
    root = loader.get_single_node()
    if root is None:
        message = "the file is empty; see experiments/manifests/demo.yaml for a whole one"
        document.problems.append(Problem((), message, 1))
        return
    if _walk(root, (), document, ()):
        document.data = loader.construct_document(root)


def _walk(node: yaml.Node, where: Location, document: Document, around: tuple[yaml.Node, ...]) -> bool:
    """Notes the lines of a node and all below it; False if it holds itself, which an alias can make it do."""
    line = node.start_mark.line + 1
    if any(node is outer for outer in around):
        document.problems.append(Problem(where, "an alias refers to what it stands in", line))
        return False
    if len(document.lines) >= _MOST_NODES:
        fault = Problem((), f"more than {_MOST_NODES:,} entries, what aliases stand for counted each time")
        document.problems += [fault] if fault not in document.problems else []
        return False
    document.lines.setdefault(where, line)
    around = (*around, node)
    if isinstance(node, yaml.MappingNode):
        return _walk_mapping(node, where, document, around)
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        return all(_walk(item, (*where, index), document, around) for index, item in items)
    return True


def _walk_mapping(
    node: yaml.MappingNode, where: Location, document: Document, around: tuple[yaml.Node, ...]
) -> bool:
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            message = f"the key stands here and on line {seen[name]}; keep one"
            document.problems.append(Problem((*where, name), message, line))
        seen[name] = line
        document.lines[(*where, name)] = line
        if not _walk(value, (*where, name), document, around):
            return False
    return True
