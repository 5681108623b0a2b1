"""A report as one Markdown file, for repositories and mails."""

from reports.content import Report, Section
from reports.tables import to_markdown


def _section(section: Section) -> str:
    parts = [f"## {section.title}"]
    if section.intro:
        parts.append(section.intro)
    parts += [to_markdown(table) for table in section.tables]
    parts += [f"![{figure.alt}](figures/{figure.name}.svg)\n\n{figure.caption}" for figure in section.figures]
    if section.lines:
        parts.append("\n".join(f"- {_plain(line)}" for line in section.lines))
    return "\n\n".join(parts)


def _plain(line: str) -> str:
    return line.replace("<", "&lt;").replace("\n", " ")


def to_document(report: Report) -> str:
    """The whole report; figures are linked as files under ``figures/``."""
    head = [f"# {_plain(report.title)}", *(f"**{_plain(line)}**" for line in report.answer), report.progress]
    footer = ["---", *map(_plain, report.footer)]
    return "\n\n".join([*head, *map(_section, report.sections), *footer]) + "\n"
