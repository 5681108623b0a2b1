"""A YAML file as data that remembers its lines, read by YAML 1.2's rules for numbers and booleans.

PyYAML reads ``1e-7`` as text, ``no`` as False and keeps the last of two equal keys without a word; none of that here.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiments.problems import Problem

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the number and boolean forms of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"),
    list("-+0123456789."),
)


@dataclass
class Document:
    """What a YAML file says, and where it says it.

    Attributes:
        path: the file.
        data: plain Python values.
        lines: location (keys and list indices from the top) -> line, counted from 1.
        problems: syntax errors and duplicate keys.
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
    """Reads a YAML file; faults are collected in ``problems``, none is raised but a missing file's OSError."""
    document = Document(path)
    loader = _Loader(path.read_text(encoding="utf-8"))
    try:
        root = loader.get_single_node()
        if root is None:
            document.problems.append(Problem((), "the file is empty; see experiments/manifests/demo.yaml for a whole one", 1))
            return document
        _walk(root, (), document)
        document.data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        document.problems.append(Problem((), f"not YAML: {error.problem}", line))
    finally:
        loader.dispose()
    return document


def _walk(node: yaml.Node, where: Location, document: Document) -> None:
    document.lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                message = f"the key stands here and on line {seen[name]}; keep one"
                document.problems.append(Problem((*where, name), message, line))
            seen[name] = line
            document.lines[(*where, name)] = line
            _walk(value, (*where, name), document)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*where, index), document)
