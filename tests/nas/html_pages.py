"""An HTML page as tests look at it."""

import json
import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags must close in order; collects tags, attributes and visible text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], set(), set(), []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def charts_of(html):
    """The Vega-Lite of every chart on a page, in order."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)]


def without_scripts(html):
    """The page without its scripts, data and style."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.S)


def alone(html):
    """That a page holds all it shows: nothing names an address, its policy allows none, and only its scripts run."""
    page, plain = Page(html), without_scripts(html)
    assert not re.findall(r"https?:|url\(|@import|//[a-z]", plain)
    assert not page.tags & {"link", "img", "iframe", "object", "base"}
    assert not page.attributes & {"src", "href", "onclick", "onerror", "onload"}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert len(scripts) == policy.count("sha256-") == 2
    assert len(html) < 2_000_000
    return page
