"""The style of the page: one sheet within it, for light and dark screens, of any width."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

__all__ = ["HASH", "STYLE"]

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #f4f6f8; --card: #fff; --line: #dde3ea; --text: #18212c; --quiet: #55616f;
  --hit: #0c8567; --other: #b9c3cf; --bad: #b3261e; --bad-ground: #fdecea; --good-ground: #e3f4ee; --accent: #0b5fb0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e1319; --card: #171e27; --line: #2b3541; --text: #e6ebf1; --quiet: #9ba8b6;
    --hit: #3cc79f; --other: #51606f; --bad: #ff8a80; --bad-ground: #3a1c1b; --good-ground: #12332a; --accent: #7ab8ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 1.75rem 1.25rem 3rem; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: baseline; justify-content: space-between; }
h1 { margin: 0; font-size: 1.6rem; letter-spacing: -.01em; }
h2 { margin: 0 0 .75rem; font-size: 1.05rem; }
p { margin: 0 0 .75rem; }
a { color: var(--accent); }
.quiet { color: var(--quiet); font-size: .875rem; }
.cards { display: grid; gap: 1rem; margin-top: 1rem; grid-template-columns: repeat(12, minmax(0, 1fr)); }
section > :last-child { margin-bottom: 0; }
section {
  grid-column: span 12; min-width: 0; padding: 1.1rem 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem;
}
.third { grid-column: span 4; }
.half { grid-column: span 6; }
@media (max-width: 52rem) { .half, .third { grid-column: span 12; } }
.third h2 { margin: 0; font-size: .875rem; font-weight: 500; color: var(--quiet); }
.figure { margin: 0; font-size: 2.4rem; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; }
.chart { height: 9rem; }
.hit { fill: var(--hit); }
.other { fill: var(--other); }
.track { fill: var(--line); }
.axis { display: flex; justify-content: space-between; margin: .35rem 0 0; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .75rem 0 0; padding: 0; list-style: none; }
.key svg { display: inline-block; width: .75rem; height: .75rem; margin-right: .4rem; }
.scroll { overflow-x: auto; margin-bottom: .5rem; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem .45rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th, thead td { border: 0; padding-top: 0; color: var(--quiet); font-size: .8125rem; font-weight: 500; }
tbody th { font-weight: 550; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
.share { width: 22%; min-width: 4rem; }
.share svg { height: .5rem; margin-top: .5rem; }
.outcome { display: inline-block; min-width: 7.5rem; }
.outcome ~ .reasons { margin-left: 7.75rem; }
.means { font-weight: 400; overflow-wrap: anywhere; }
.reasons { display: block; font-size: .875rem; font-weight: 400; color: var(--quiet); overflow-wrap: anywhere; }
.state { font-weight: 600; }
.ok { color: var(--hit); }
.bad { color: var(--bad); }
.told { margin: 1rem 0 0; padding: .75rem 1rem; border-radius: .6rem; overflow-wrap: anywhere; }
.told.ok { background: var(--good-ground); color: var(--text); }
.told.bad { background: var(--bad-ground); color: var(--text); }
label { display: block; font-weight: 550; }
fieldset { margin: 0 0 1rem; padding: 0; border: 0; }
legend { padding: 0; font-weight: 550; }
fieldset label { font-weight: 400; }
input[type=text] {
  width: 100%; margin: .25rem 0 1rem; padding: .55rem .7rem; font: inherit; color: inherit;
  background: var(--ground); border: 1px solid var(--quiet); border-radius: .5rem;
}
button {
  padding: .55rem 1.4rem; font: inherit; font-weight: 600; cursor: pointer;
  color: var(--card); background: var(--text); border: 1px solid var(--text); border-radius: .5rem;
}
@media (max-width: 36rem) {
  main { padding: 1.25rem .9rem 2rem; }
  section { padding: .9rem 1rem; }
  .share { display: none; }
  th, td { padding-right: .4rem; }
  .outcome ~ .reasons { margin-left: 0; }
  .outcome { display: block; }
}
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""

#: Of the sheet, for Content-Security-Policy.
HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
