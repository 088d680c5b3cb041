"""Every page in a real browser: nothing fails, nothing is asked for, nothing hangs out, and one can point at things."""

import numpy as np
import pytest
from browser import HOW, WHERE, Browser
from bundles import tree
from decision_tables import small_decisions
from html_pages import charts_of
from stream_lines import LINES
from test_report import EVIL, full_summary, small_tree
from test_report_field import device_run, field, tree_run

from modeltree.link.traces import Trace
from nas.decisions.offloading.compare import contenders, over_bandwidths, rows
from nas.emulation.methods import emulate_methods, mean_over, verdicts
from nas.field.stream.record import StreamRecord, StreamRun
from nas.report.emulation import render_emulation
from nas.report.field.page import render_field
from nas.report.policies import render_policies
from nas.report.search.page import render_page
from nas.report.streams import render_stream
from nas.results.summary import read_summary

pytestmark = [pytest.mark.browser, pytest.mark.skipif(WHERE is None, reason=HOW)]


def search_page():
    summary = full_summary()
    summary["curves"][EVIL] = [[1, 300.0], [10, 310.0]]
    summary["along_trace"]["latency_ms"][EVIL] = [1.0, 2.0, 3.0]
    return render_page(read_summary(summary), small_tree())


def field_page():
    return render_field(field(device_run(), tree_run(alone=(1,)), deadline_ms=50.0, device=EVIL))


def emulation_page():
    """Three links that change between 8 and 1 Mbit/s."""
    trees, times = {"tree": tree(), "surgery": tree()}, 20.0 * np.arange(4)
    links = [
        emulate_methods(trees, Trace(
            name=name, time_s=times, bandwidth_mbps=np.array([8.0, 1.0, 4.0, 1.0]), end_s=80.0, rtt_ms=10.0, origin="",
        ), starts=20)
        for name in ("one", "two", EVIL)
    ]  # fmt: skip
    whole = mean_over(links)
    return render_emulation(links, whole, trees, verdicts(whole, trees))


def policies_page():
    decisions = small_decisions()
    policies = contenders(decisions, {})
    outcomes = over_bandwidths(decisions, policies, np.linspace(0.0, 80.0, 81))
    return render_policies(title=EVIL, facts=[], table=decisions.table, rows=rows(decisions, policies, outcomes),
                           outcomes=outcomes, times_s=None)  # fmt: skip


def streams_page():
    runs = tuple(StreamRun(policy=policy, lines=LINES, server_down_ms=(0.0, 9.0)) for policy in ("edf", EVIL))
    record = StreamRecord(bundle="b", base=EVIL, devices=2, mbps=10.0, rtt_ms=4.0, order="fifo", slowdown=2.0,
                          tasks_from="drawn", machine="m", commit="c", date="d", table={}, runs=runs)  # fmt: skip
    return render_stream(record)


PAGES = {
    "search": search_page, "field": field_page, "emulation": emulation_page, "policies": policies_page,
    "streams": streams_page,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, render in PAGES.items():
        (folder / f"{name}.html").write_text(render(), encoding="utf-8")
    return folder


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_draws_its_charts_asks_for_nothing_and_fits(browser, pages, name, width):
    path = pages / f"{name}.html"
    tab = browser.open(path, width=width)
    assert tab.complaints() == []
    assert tab.requests() == []
    count = len(charts_of(path.read_text(encoding="utf-8")))
    assert tab.run("document.querySelectorAll('figure.chart svg').length") == count > 2
    assert tab.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('figure.chart svg')].map((one) => one.getBoundingClientRect())"
    assert all(0 <= left <= right <= width for left, right in tab.run(f"{wide}.map((box) => [box.left, box.right])"))


def test_a_dark_page_has_dark_charts_without_being_drawn_again(browser, pages):
    tab = browser.open(pages / "search.html", dark=True)
    line = "getComputedStyle(document.querySelector('path[stroke=\"var(--tree)\"]')).stroke"
    assert tab.run(line) == "rgb(126, 166, 255)"
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    assert tab.run(line) == "rgb(36, 86, 214)"


def chart(tab, title):
    """Which figure stands in the section of a title."""
    figures = "[...document.querySelectorAll('figure.chart')]"
    return tab.run(f"{figures}.findIndex((one) => one.closest('section').innerText.startsWith('{title}'))")


def lines(tab, which):
    """How many lines a figure shows."""
    marks = "g.mark-line[aria-roledescription='line mark container'] > path"
    return tab.run(f"document.querySelectorAll('figure.chart')[{which}].querySelectorAll(\"{marks}\").length")


def test_a_switch_hides_its_method_in_every_chart_and_shows_it_again(browser, pages):
    tab = browser.open(pages / "search.html")
    search, trace = chart(tab, "Search"), chart(tab, "Along the trace")
    before = lines(tab, search), lines(tab, trace)
    for after in ((before[0] - 1, before[1] - 1), before):
        left, top, width, height = tab.box("button[data-name=tree]")
        tab.click(left + width / 2, top + height / 2)
        pressed = f"[aria-pressed={str(after == before).lower()}]"
        tab.wait(f"document.querySelectorAll('button[data-name=tree]{pressed}').length > 1")
        tab.wait("new Promise((done) => setTimeout(() => done(true), 300))")
        assert (lines(tab, search), lines(tab, trace)) == after


def test_the_pointer_reads_the_values_of_its_moment(browser, pages):
    tab = browser.open(pages / "search.html")
    left, top, width, height = tab.box("figure.chart .drawing", chart(tab, "Along the trace"))
    middle = left + 52 + 0.5 * (width - 66), top + 0.7 * height  # of three moments: 1 s
    tab.hover(*middle, "document.querySelector('#vg-tooltip-element.visible') !== null")
    text = tab.run("document.querySelector('#vg-tooltip-element').innerText").split()
    assert " ".join(text).startswith("time in s 1 Model tree 50 Surgery 80")
    assert tab.run("document.querySelectorAll('img, main script:not([type])').length") == 0


def test_dragging_across_the_link_looks_at_a_stretch(browser, pages):
    tab = browser.open(pages / "search.html")
    which = chart(tab, "Along the trace")
    left, top, width, _ = tab.box("figure.chart .drawing", which)
    label = "[aria-label*=\"titled 'time in s'\"]"
    axis = f"document.querySelectorAll('figure.chart')[{which}].querySelector(`{label}`).ariaLabel"
    assert "values from 0.0 to 2.0" in tab.run(axis)
    tab.drag((left + 52, top + 50), (left + 52 + 0.25 * (width - 66), top + 50))
    tab.wait(f"/values from 0.0+ to 0.50?$/.test({axis})")
    assert tab.complaints() == []
