"""What to cite for a method, as BibTeX, out of the source that its entry names."""

import re

from po.methods.method import Method

_PAPER = re.compile(r"(?P<authors>.+?) (?P<year>(19|20)\d\d), arXiv:(?P<arxiv>\d{4}\.\d{5}).*")


def cited(method: Method) -> tuple[Method, ...]:
    """A method and those of which it is put together, as in ``wpo(ipo)``; each once."""
    parts = [inner for part in method.parts for inner in cited(part)]
    return tuple({part.name: part for part in (method, *parts)}.values())


def citations(method: Method) -> tuple[str, ...]:
    """BibTeX entries of the sources of a method and its parts, each once.

    A paper on arXiv is given by its authors, as the table of methods names them, year and number; any other
    source by a note. ``sft``, which has no source, has no entry.
    """
    found = {part.paper: _entry(part) for part in cited(method) if part.data != "supervised"}
    return tuple(dict.fromkeys(found.values()))


def _entry(method: Method) -> str:
    paper = _PAPER.fullmatch(method.paper)
    if paper is None:
        fields = {"title": f"{{{method.name}}}", "note": method.paper}
        return _bibtex(re.sub(r"\W+", "_", method.name).strip("_"), fields)
    authors = paper["authors"].replace(" et al.", " and others").replace(", ", " and ")
    first = re.sub(r"\W", "", authors.partition(" and ")[0]).lower()
    return _bibtex(
        f"{first}{paper['year']}_{paper['arxiv'].replace('.', '_')}",
        {
            "author": authors,
            "year": paper["year"],
            "eprint": paper["arxiv"],
            "archivePrefix": "arXiv",
            "url": f"https://arxiv.org/abs/{paper['arxiv']}",
        },
    )


def _bibtex(key: str, fields: dict[str, str]) -> str:
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}"
