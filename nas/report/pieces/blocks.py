"""The blocks of a page, and the page around them: one skeleton, escaped by Jinja.

Every block is a `Markup`; plain strings passed in are escaped. So a page is put together without any HTML:

    page(title="Streams", facts=["4 devices"], footer="Written by nas streams.", sections=[
        verdict(["No task is late."]),
        section("Schedule", chart(picture, label="tasks over time")),
        section("Compared", table(["method", "late"], [[swatch("var(--tree)") + "tree", "0"]])),
    ])
"""

import base64
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modeltree.tree.render import ms_text

KINDS = {
    "measured": "run on test images that the search never saw",
    "predicted": "from the device and cloud profiles, or the search's accuracy predictor",
    "mixed": "of a measured accuracy and a predicted latency",
    "simulated": "predicted compute times played along the link's trace",
}
"""Where a number comes from, and what that means on a page that does not say otherwise."""

Text = str | Markup
Tile = tuple[str, str, str, str]
"""What it is, its value, its kind (may be empty), what it compares with."""


@functools.cache
def _templates() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["ms"] = ms_text
    return templates


def _source(name: str) -> str:
    """A file of the templates' folder as it is."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, from the installed package."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def render(name: str, **values: Any) -> Markup:
    """A file of `templates`, filled in."""
    return Markup(_templates().get_template(name).render(values).strip())


def block(name: str, *values: Any) -> Markup:
    """A macro of `templates/blocks.html`, filled in."""
    macro = getattr(_templates().get_template("blocks.html").module, name)
    return Markup(macro(*values).strip())


def page(*, title: str, facts: Iterable[str], sections: Iterable[Text], footer: str) -> str:
    """A whole page, one file: nothing is loaded, and its policy would not let it.

    The scripts that draw charts are in it if it has any.

    Parameters
    ----------
    facts : one line under the title. sections : in order; empty ones are left out, of both.
    """
    body = list(sections)
    scripts = [_vega(), _source("charts.js")] if any('<figure class="chart"' in one for one in body) else []
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    return render(
        "page.html", title=title, facts=facts, sections=body, footer=footer, style=Markup(style_sheet()),
        scripts=[Markup(script) for script in scripts],
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}",
    )  # fmt: skip


def style_sheet() -> str:
    """The look of all pages, light and dark."""
    return _source("style.css")


def section(title: Text, *content: Text, note: Text = "", kind: str = "", classes: str = "") -> Markup:
    """A section with a heading; nothing where it has no content."""
    return block("section", title, tag(kind), note, content, classes)


def pair(*sections: Text) -> Markup:
    """Sections side by side where there is room; nothing where all are empty, as in `stack`."""
    return block("pair", sections)


def stack(*sections: Text) -> Markup:
    """Sections one under the other, as one half of a pair."""
    return block("stack", sections)


def verdict(sentences: Sequence[Text], *, warn: bool = False, alarms: Text = "") -> Markup:
    """What the page comes to: the first sentence large."""
    return block("verdict", sentences, alarms, warn)


def alarm_lines(sentences: Sequence[Text]) -> Markup:
    """Sentences that nobody must miss."""
    return block("alarms", sentences)


def badge(text: str, *, alarm: bool = False) -> Markup:
    """One word in a box."""
    return block("badge", text, alarm)


def tiles(entries: Iterable[Tile]) -> Markup:
    """A row of large numbers."""
    return block("tiles", [(what, value, tag(kind), more) for what, value, kind, more in entries])


def legend(kinds: Mapping[str, str]) -> Markup:
    """What the tags of the page say."""
    return block("legend", [(tag(name), what) for name, what in kinds.items()])


def facts(entries: Iterable[tuple[Text, Text]], *, wide: bool = True) -> Markup:
    """Names and values, those without a value left out; in two columns where `wide`."""
    return block("facts", list(entries), wide)


def unbroken(sentence: str) -> str:
    """With numbers and their units on one line."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ms", "\N{NO-BREAK SPACE}ms")


def colour_key(entries: Iterable[tuple[str, str, str]]) -> Markup:
    """Colours that are no switch: (CSS colour, what it stands for, more in pale)."""
    return block("key", list(entries))


def details(summary: str, content: Text) -> Markup:
    """Content behind a line that opens it."""
    return block("details", summary, content)


def tag(kind: str) -> Markup:
    """The tag that says where a number comes from; nothing for no kind."""
    return block("kind", kind, kind if kind in KINDS else "")


def swatch(colour: str) -> Markup:
    """A spot of a CSS colour."""
    return block("swatch", colour)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
