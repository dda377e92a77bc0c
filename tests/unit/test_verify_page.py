# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that verify writes: whole, alone, escaped; and as a browser shows it, where there is one."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.airflow.plugins.module_utils import _verify_style
from ansible_collections.onprem.airflow.plugins.module_utils._problems import CHECKS
from ansible_collections.onprem.airflow.plugins.module_utils._verify_page import page
from verify_samples import Sample, large, pictures

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EMPTY = {"meta", "link", "br", "img", "input", "use", "path", "rect", "circle"}
NASTY = '<script>alert("1")</script>&amp;\'`x`'


class Reader(HTMLParser):
    """Elements, texts and references of a page; anything that is not closed in order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [str(given[name]) for _tag, given in self.elements if name in given]


SAMPLES = pictures()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_is_whole_and_needs_nothing_else(name: str) -> None:
    document = SAMPLES[name].document()
    text = page(document)
    reader = Reader(text)
    ids = reader.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [*reader.attributes("href"), *(f"#{target}" for target in reader.attributes("aria-labelledby"))]
    assert targets and all(target.startswith("#") and target[1:] in ids for target in targets), targets
    assert not {tag for tag, _attrs in reader.elements} & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not reader.attributes("src") and not re.search(r"url\(|@import|javascript:", text)
    assert not [key for _tag, attrs in reader.elements for key in attrs if key.startswith("on")]
    assert len(text.encode()) < 1_000_000
    # Everything that the document tells a person stands there as text.
    for problem in document["problems"]:
        plain = {key: problem[key].replace("`", "") for key in ("what", "fix", "code")}
        assert all(value in reader.text for value in plain.values()), plain
    for host in document["hosts"]:
        assert host in reader.text
    for entry in document["not_looked_at"]:
        assert entry["why"] in reader.text
    for queue in document["queues"]:
        assert queue["name"] in reader.text


def test_the_page_has_an_order_for_those_who_do_not_see_it() -> None:
    reader = Reader(page(SAMPLES["six"].document()))
    headings = [int(tag[1]) for tag, _attrs in reader.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    cells = [(tag, attrs) for tag, attrs in reader.elements if tag == "th"]
    assert cells and all(attrs.get("scope") in ("col", "row") for _tag, attrs in cells)
    assert [attrs.get("lang") for tag, attrs in reader.elements if tag == "html"] == ["en"]
    for tag, attrs in reader.elements:
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or attrs.get("aria-label")
    for check in CHECKS:
        assert check in reader.text


def nasty(document: dict[str, Any]) -> dict[str, Any]:
    """The document with markup in everything that a host, the inventory or a queue could be called."""

    def change(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            names = key in ("hosts", "versions", "files", "bundles") and "status" not in value
            return {(name + NASTY if names else name): change(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [change(item, key) for item in value]
        kept = ("status", "code", "check", "time", "roles", "groups", "schema")
        return value + NASTY if isinstance(value, str) and key not in kept else value

    return {**change(document), "version": NASTY}


@pytest.mark.parametrize("name", ["six", "limited", "large"])
def test_everything_is_escaped(name: str) -> None:
    text = page(nasty(SAMPLES[name].document()))
    assert "<script" not in text and "&lt;script&gt;" in text
    reader = Reader(text)
    assert "script" not in {tag for tag, _attrs in reader.elements}


def test_a_host_is_escaped_wherever_it_stands() -> None:
    sample = Sample({'w<1>&"': ["q<2>"], "worker2": ["default"]})
    sample.problem("broker_timeout", 'w<1>&"', "broker:mq1:5672", "no answer from <mq1> & co").silence('w<1>&"')
    text = page(sample.document())
    Reader(text)
    assert "<1>" not in text and "<2>" not in text and "<mq1>" not in text


def test_the_headline_says_what_is_wrong() -> None:
    def title(sample: Sample) -> str:
        return re.findall(r"<title>(.*)</title>", page(sample.document()))[0]

    assert title(Sample(2)) == "Nothing is wrong on 5 hosts"
    assert title(Sample(2).broker_down()) == "1 problem on 1 host"
    assert title(Sample(2).leave_out("worker1")) == "Nothing is wrong on 4 hosts"
    everybody = Sample(1)
    for name in list(everybody.hosts):
        everybody.leave_out(name)
    assert title(everybody) == "No host was looked at"


def test_problems_are_marked_where_they_show() -> None:
    text = page(Sample(2).broker_down().document())
    rows = dict(re.findall(r'<tr><th scope="row">(\w+)<small>.*?</small></th>(.*?)</tr>', text))
    assert 'class="bad" href="#p1"' in rows["mq1"] and 'class="follows" href="#p1"' in rows["worker1"]
    assert "href" not in rows["db1"]


def test_workers_that_are_well_and_alike_are_drawn_as_one() -> None:
    text = page(large().document())
    wide = re.findall(r"<svg viewBox=.*?</svg>", text, re.DOTALL)[0]
    assert "119 workers" in wide and "76 workers" in wide and "gpu1" in wide
    assert wide.count('class="node') < 12
    assert "200 hosts all ok" in text


def test_a_drained_worker_is_seen_and_told_how_to_take_it_back() -> None:
    text = page(SAMPLES["drained"].document())
    reader = Reader(text)
    rows = dict(re.findall(r'<tr><th scope="row">(\w+)<small>.*?</small></th>(.*?)</tr>', text))
    assert '<td class="drained">drained</td>' in rows["worker1"] and "drained" not in rows["worker3"]
    for svg in re.findall(r"<svg viewBox=.*?</svg>", text, re.DOTALL):
        assert svg.count('class="node drained"') == 2 and svg.count('href="#s-drained"') == 2
    drawings = re.findall(r"<svg viewBox=.*?</svg>", text, re.DOTALL)
    assert drawings[0].count('class="wire drained"') == 2, "one from its queue to each, which is not a fault"
    assert 'class="wire follows"' not in text and 'class="wire bad"' not in text
    assert "worker1 since 2026-11-22T13:05:00Z by ann; to take it back: ansible-playbook onprem.airflow.undrain" in (
        reader.text
    )
    assert "2, 4 (2 drained)" in reader.text and "Nothing is wrong" in reader.text
    assert "drained" not in Reader(page(SAMPLES["ok"].document())).text


def test_a_queue_that_only_drained_workers_serve_is_marked() -> None:
    text = page(SAMPLES["drained, problem"].document())
    assert re.search(r'<g class="node bad">[^<]*<rect[^>]*rx="16"/>.*?gpu</text>', text)


def test_many_drained_workers_are_drawn_after_those_that_are_ill() -> None:
    sample = large().six_problems()
    for number in range(20, 40):
        sample.drain(f"worker{number}")
    drawing = re.findall(r"<svg viewBox=.*?</svg>", page(sample.document()), re.DOTALL)[0]
    for name in ("worker1", "worker2", "worker3", "gpu1"):
        assert re.search(rf'class="node (?:bad|follows)"><title>{name}:', drawing), name
    assert "14 more" in drawing and ">drained<" in drawing


def colours(scheme: str) -> dict[str, str]:
    blocks = re.findall(r":root \{([^}]*)\}", _verify_style.STYLE)
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(scheme: str) -> None:
    """WCAG 2, AA: 4.5 to 1 for text."""
    given = colours(scheme)

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = [(ink, ground) for ink in ("ink", "dim") for ground in ("page", "panel", "soft")]
    pairs += [(state, ground) for state in ("ok", "bad", "follows", "unseen") for ground in ("page", "panel")]
    pairs += [(state, f"{state}-soft") for state in ("bad", "follows", "unseen")]
    pairs += [("dim", f"{state}-soft") for state in ("bad", "follows", "unseen")] + [("panel", "bad")]
    for ink, ground in pairs:
        light, dark = sorted((luminance(given[ink]), luminance(given[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["six", "large", "ok", "drained"])
def test_a_browser_shows_it(name: str, width: int, scheme: str, tmp_path: Path) -> None:
    document = SAMPLES[name].document()
    # In a frame of the width, because a window cannot be narrower than 500; asks for what can be seen.
    probe = """<script>
addEventListener("load", () => {
  const view = document.documentElement, seen = [];
  for (const e of document.querySelectorAll("h1, .problems > li"))
    if (e.checkVisibility() && e.getBoundingClientRect().right <= view.clientWidth) seen.push(e.innerText);
  const out = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg, details:not([open])")
    && e.getClientRects().length && e.getBoundingClientRect().right > view.clientWidth + 1)
    .map(e => e.outerHTML.slice(0, 80));
  const drawn = [...document.querySelectorAll("figure")].filter(e => e.checkVisibility()).map(e => e.className);
  parent.postMessage(JSON.stringify({client: view.clientWidth, scroll: view.scrollWidth, seen, out, drawn,
    ground: getComputedStyle(document.body).backgroundColor}), "*");
});
</script>"""
    (tmp_path / "page.html").write_text(page(document).replace("</body>", f"{probe}</body>"))
    (tmp_path / "frame.html").write_text(
        f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
        '<pre id="told"></pre><script>addEventListener("message", e => { told.textContent = e.data })</script>'
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--hide-scrollbars"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--window-size=1400,1000"]
    options += ["--blink-settings=preferredColorScheme=" + ("0" if scheme == "dark" else "1")]
    assert CHROMIUM
    command = [CHROMIUM, *options, "--dump-dom", (tmp_path / "frame.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    told = json.loads(html.unescape(re.findall(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)[0]))
    assert told["client"] == width and told["scroll"] <= width, told["out"]
    assert not told["out"]
    assert told["drawn"] == ["wide" if width > 760 else "narrow"]
    seen = "\n".join(told["seen"])
    assert ("problems" if document["problems"] else "Nothing is wrong") in seen
    for problem in document["problems"]:
        assert problem["what"].split("`")[0] in seen and problem["fix"].split("`")[0] in seen
    expected = colours(scheme)["page"]
    assert told["ground"] == f"rgb({', '.join(str(int(expected[i : i + 2], 16)) for i in (1, 3, 5))})"
