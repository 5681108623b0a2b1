"""A report as one HTML page that needs nothing else: styles and figures inside, no script, nothing loaded."""

import base64

import jinja2
from markupsafe import Markup

from reports.content import Report
from reports.plots import Figure


def _image(figure: Figure) -> Markup:
    """The figure as a data URI: an image cannot run what a drawing might contain."""
    encoded = base64.b64encode(figure.svg.encode()).decode("ascii")
    return Markup('<img src="data:image/svg+xml;base64,{}" alt="{}">').format(encoded, figure.alt)


def to_page(report: Report) -> str:
    """Render the page; every text is escaped by the template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["image"] = _image
    return environment.get_template("page.html.jinja").render(report=report)
