# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to the collection: how the page of verify looks."""

from __future__ import annotations

# Every state has a shape of its own: a tick, a full and an empty diamond, a dashed ring, a pause.
SYMBOLS = """<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>
<symbol id="s-ok" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="var(--ok)"/>
<path d="M4.8 8.3l2.2 2.2 4.3-4.8" fill="none" stroke="var(--panel)" stroke-width="1.8" stroke-linecap="round"
 stroke-linejoin="round"/></symbol>
<symbol id="s-bad" viewBox="0 0 16 16"><path d="M8 .4L15.6 8 8 15.6.4 8z" fill="var(--bad)"/>
<path d="M8 4.4v4.4M8 11v.4" stroke="var(--panel)" stroke-width="1.8" stroke-linecap="round"/></symbol>
<symbol id="s-follows" viewBox="0 0 16 16"><path d="M8 1.4L14.6 8 8 14.6 1.4 8z" fill="none" stroke="var(--follows)"
 stroke-width="1.6"/></symbol>
<symbol id="s-unseen" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.4" fill="none" stroke="var(--unseen)"
 stroke-width="1.6" stroke-dasharray="2.6 2.4"/></symbol>
<symbol id="s-drained" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.4" fill="none" stroke="var(--dim)"
 stroke-width="1.6"/><path d="M6.2 5.4v5.2M9.8 5.4v5.2" stroke="var(--dim)" stroke-width="1.8"
 stroke-linecap="round"/></symbol>
</defs></svg>"""

STYLE = """
:root { color-scheme: light dark;
  --page: #f5f6f8; --panel: #ffffff; --ink: #1a1f26; --dim: #58626e; --line: #dde1e6; --soft: #f0f2f5;
  --ok: #1b7f4d; --bad: #b4231a; --follows: #8a5700; --unseen: #4d5a94; --link: #5b7ba6;
  --bad-soft: #fcecea; --follows-soft: #fbf2df; --unseen-soft: #eef0f9; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0e1217; --panel: #161b22; --ink: #e5e9ee; --dim: #9aa6b3; --line: #2a323c; --soft: #1d242d;
  --ok: #58c48b; --bad: #ff8d83; --follows: #e3b04b; --unseen: #a8b3ea; --link: #6f8fbb;
  --bad-soft: #351d1e; --follows-soft: #2d2614; --unseen-soft: #1f2439; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
main { max-width: 1184px; margin: 0 auto; padding: 40px 32px 48px; }
h1, h2, h3, p, ul, ol, dl, dd, figure { margin: 0; padding: 0; }
code { font: .88em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
.i { width: 1em; height: 1em; flex: none; }
.over { color: var(--dim); font-size: 13px; font-weight: 600; }
h1 { display: flex; gap: 14px; align-items: center; font-size: 34px; line-height: 1.2; font-weight: 650;
  letter-spacing: -.015em; margin: 4px 0 6px; }
h1 .i { width: 34px; height: 34px; }
h1.bad { color: var(--bad); } h1.good { color: var(--ok); } h1.fair { color: var(--unseen); }
.sub, .note { color: var(--dim); }
.facts { display: grid; grid-template-columns: repeat(5, auto); margin-top: 24px; background: var(--panel);
  border: 1px solid var(--line); border-radius: 10px; }
.facts div { padding: 12px 20px; border-left: 1px solid var(--line); }
.facts div:first-child { border-left: 0; }
dt { color: var(--dim); font-size: 13px; } .facts dd { font-size: 17px; font-weight: 600; }
section { margin-top: 36px; }
h2 { font-size: 19px; font-weight: 650; letter-spacing: -.005em; margin-bottom: 10px; }
h2 + .note { margin: -8px 0 12px; font-size: 14px; }
figure, .problems, .scroll, .left-out, .strips, .versions { background: var(--panel); border: 1px solid var(--line);
  border-radius: 10px; }
figure { padding: 20px; } figure svg { display: block; width: 100%; height: auto; }
figure.narrow { display: none; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 10px; font-size: 13px; color: var(--dim); }
.legend span { display: inline-flex; gap: 6px; align-items: center; }

.node rect { fill: var(--panel); stroke: var(--line); stroke-width: 1.2; }
.node .stack { fill: var(--soft); }
.node.bad > rect { fill: var(--bad-soft); stroke: var(--bad); stroke-width: 1.6; }
.node.follows > rect { fill: var(--follows-soft); stroke: var(--follows); stroke-width: 1.4; stroke-dasharray: 5 3; }
.node.unseen > rect { fill: var(--unseen-soft); stroke: var(--unseen); stroke-dasharray: 2.5 3; }
.node.drained > rect { fill: var(--soft); stroke: var(--dim); stroke-width: 1.4; }
.box { fill: var(--soft); stroke: none; }
figure text { fill: var(--ink); font-size: 13.5px; }
figure .name { font-weight: 600; } figure .small, figure .head { fill: var(--dim); font-size: 12.5px; }
figure .head { font-weight: 600; font-size: 13px; }
.node.bad .small { fill: var(--bad); } .node.follows .small { fill: var(--follows); }
.wire { fill: none; stroke: var(--link); stroke-width: 1.5; opacity: .75; }
.wire.heavy { stroke-width: 3; }
.wire.bad { stroke: var(--bad); stroke-width: 2; stroke-dasharray: 6 4; opacity: 1; }
.wire.follows { stroke: var(--follows); stroke-width: 1.7; stroke-dasharray: 6 4; opacity: 1; }
.wire.drained { stroke: var(--dim); stroke-dasharray: 1 5; stroke-linecap: round; opacity: 1; }
.wire.unseen { stroke: var(--unseen); stroke-dasharray: 2 4; }
.tip { fill: var(--link); }
.cut { stroke: var(--bad); stroke-width: 2; stroke-linecap: round; fill: none; }
.cut.follows { stroke: var(--follows); }
.label rect { fill: var(--panel); } figure .label text { fill: var(--dim); font-size: 12.5px; }
figure .label.bad text { fill: var(--bad); } figure .label.follows text { fill: var(--follows); }
.badge path { fill: var(--bad); } figure .badge text { fill: var(--panel); font-size: 12px; font-weight: 700; }
.badge.follows path { fill: var(--panel); stroke: var(--follows); stroke-width: 1.4; }
figure .badge.follows text { fill: var(--follows); }

.problems { list-style: none; }
.problems > li { display: grid; grid-template-columns: 30px minmax(0, 1fr); gap: 16px; padding: 18px 20px;
  border-top: 1px solid var(--line); scroll-margin-top: 16px; }
.problems > li:first-child { border-top: 0; }
.problems > li:target { background: var(--bad-soft); }
.no { position: relative; width: 30px; height: 30px; display: grid; place-items: center; color: var(--panel);
  font-weight: 700; font-size: 14px; z-index: 0; }
.no::before { content: ""; position: absolute; inset: 4px; background: var(--bad); transform: rotate(45deg);
  border-radius: 3px; z-index: -1; }
.problems h3 { font-size: 16px; font-weight: 450; line-height: 1.45; overflow-wrap: anywhere; }
.who { font-weight: 700; } .who::after { content: ":"; }
.fix { margin-top: 8px; display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 10px; max-width: 92ch;
  overflow-wrap: anywhere; }
.fix b { color: var(--ok); font-weight: 650; }
.problems details { margin-top: 8px; color: var(--dim); }
summary { cursor: pointer; width: fit-content; }
summary:hover { color: var(--ink); }
.also { margin: 4px 0 0 18px; font-size: 14px; overflow-wrap: anywhere; } .also b { color: var(--ink); font-weight:
  600; }
.problems .code { margin-top: 8px; font-size: 13px; color: var(--dim); overflow-wrap: anywhere; }
.left-out { list-style: none; padding: 8px 20px; }
.left-out li { display: flex; gap: 12px; padding: 6px 0; align-items: center; overflow-wrap: anywhere; }

.scroll { overflow-x: auto; } .scroll:focus-visible, summary:focus-visible, a:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 10px; text-align: left; border-top: 1px solid var(--line); white-space: nowrap; }
thead th { border-top: 0; color: var(--dim); font-weight: 600; font-size: 13px; }
th:first-child { padding-left: 20px; } td:last-child, th:last-child { padding-right: 20px; }
tbody th { font-weight: 600; } th small { display: block; font-weight: 400; font-size: 12.5px; color: var(--dim); }
.grid tbody th, .grid thead th:first-child { position: sticky; left: 0; background: var(--panel); z-index: 1; }
.grid td { color: var(--dim); }
.grid td.bad { background: var(--bad-soft); } .grid td.follows { background: var(--follows-soft); }
.grid td.unseen { background: var(--unseen-soft); color: var(--unseen); border-radius: 0; }
.grid td.drained { background: var(--soft); color: var(--ink); }
td.none { opacity: .55; }
td a, th a { display: inline-grid; place-items: center; min-width: 24px; height: 22px; margin-right: 4px; padding:
  0 6px;
  border-radius: 4px; font-weight: 700; font-size: 13px; text-decoration: none; }
a.bad { background: var(--bad); color: var(--panel); }
a.follows { border: 1.5px dashed var(--follows); color: var(--follows); background: var(--panel); }
.fold { margin-top: 10px; } .fold .scroll { margin-top: 10px; }
.fold summary { font-weight: 600; padding: 6px 2px; }
.plain td { white-space: normal; } .n { text-align: right !important; } .dim { color: var(--dim); }

.strips { padding: 14px 20px 10px; display: grid; gap: 2px; }
.strip, .axis { display: grid; grid-template-columns: 130px minmax(0, 1fr) 300px; gap: 20px; align-items: center; }
.strip b { font-weight: 600; font-size: 14px; } .strip > span { color: var(--dim); font-size: 14px; overflow-wrap:
  anywhere; }
.track { position: relative; height: 26px; background: linear-gradient(var(--line), var(--line)) center/100% 1px
  no-repeat; }
.track i { position: absolute; top: 6px; width: 6px; height: 14px; margin-left: -3px; border-radius: 3px;
  background: var(--link); }
.track i.many { width: 8px; margin-left: -4px; top: 3px; height: 20px; border-radius: 4px; }
.axis > div { position: relative; height: 20px; font-size: 12.5px; color: var(--dim); }
.axis > div span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis > div span:first-child { transform: none; } .axis > div span:last-child { transform: translateX(-100%); }
.versions { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); padding: 10px 20px; gap: 0
  28px; }
.scroll + .versions { margin-top: 10px; }
.versions div { display: flex; justify-content: space-between; gap: 12px; padding: 5px 0; }
.versions dt { overflow-wrap: anywhere; font-size: 14px; } .versions dd { font-variant-numeric: tabular-nums; }
footer { margin-top: 36px; color: var(--dim); font-size: 13px; }

@media (max-width: 760px) {
  main { padding: 24px 16px 32px; } h1 { font-size: 26px; align-items: flex-start; } h1 .i { width: 28px; height:
  28px; margin-top: 2px; }
  .facts { grid-template-columns: 1fr 1fr; } .facts div { padding: 8px 14px; border-left: 0; border-top: 1px solid
  var(--line); }
  .facts div:nth-child(-n+2) { border-top: 0; } .facts div:last-child { grid-column: 1 / -1; } .facts dd {
  font-size: 15px; }
  figure { padding: 12px; } figure.wide { display: none; } figure.narrow { display: block; }
  .problems > li { grid-template-columns: 26px minmax(0, 1fr); gap: 10px; padding: 16px 14px; }
  .no { width: 26px; height: 26px; }
  .fix { grid-template-columns: 1fr; gap: 0; }
  .strip, .axis { grid-template-columns: 1fr; gap: 2px; padding-bottom: 6px; } .axis > span { display: none; }
  .strips, .left-out, .versions { padding-left: 14px; padding-right: 14px; }
  th:first-child { padding-left: 14px; }
}
@media print {
  :root { --page: #fff; --panel: #fff; --ink: #000; --dim: #444; --line: #bbb; --soft: #f2f2f2; --ok: #14663c;
  --bad: #a01c14;
    --follows: #704600; --unseen: #3b4780; --link: #45628c; --bad-soft: #fcecea; --follows-soft: #fbf2df;
  --unseen-soft: #eef0f9; }
  body { font-size: 11pt; } main { max-width: none; padding: 0; } .scroll { overflow: visible; }
  .problems > li, tr, .strip { break-inside: avoid; } table { font-size: 9pt; } th, td { padding: 3px 5px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
