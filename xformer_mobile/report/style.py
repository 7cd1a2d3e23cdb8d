"""The page's stylesheet: light and dark, wide and narrow, on paper. Colours keep a contrast of 4.5:1 (WCAG AA)."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f6f3; --card: #ffffff; --ink: #1d2126; --soft: #5a626c; --line: #dfe1dd; --faint: #eeefec;
  --good: #17663a; --good-tint: #e6f2ea; --bad: #ab231c; --bad-tint: #fbeae8; --warn: #7d5200; --warn-tint: #faf0dc;
  --own: #215f9f; --inherited: #777d85;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #131619; --card: #1b1f23; --ink: #e4e6e8; --soft: #a2aab3; --line: #333a41; --faint: #262b30;
    --good: #72cd98; --good-tint: #172b20; --bad: #ff9389; --bad-tint: #371c1b; --warn: #e6b765; --warn-tint: #2f2613;
    --own: #7ab2ee; --inherited: #8c949c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "DejaVu Sans", sans-serif; margin: 0; }
main, header { margin: 0 auto; max-width: 76rem; padding: 0 1.5rem; }
header { padding-top: 2.5rem; }
main { padding-bottom: 4rem; }
h1, h2, h3, p, li, dd, summary { overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; font-weight: 650; letter-spacing: -.015em; line-height: 1.2; margin: .1rem 0 1.2rem; }
h2 { font-size: 1.25rem; font-weight: 650; letter-spacing: -.01em; margin: 2.8rem 0 .3rem; }
h3 { font-size: .95rem; font-weight: 650; margin: 1.6rem 0 .3rem; }
p { margin: .35rem 0; max-width: 52rem; }
a { color: var(--own); text-underline-offset: .15em; }
code, .mono { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.eyebrow { color: var(--soft); font-size: .82rem; letter-spacing: .06em; text-transform: uppercase; }
.card > :first-child, .card > :first-child > h3:first-child { margin-top: 0; }
.card > :last-child, .card > :last-child > :last-child { margin-bottom: 0; }
.soft { color: var(--soft); }
.small { font-size: .86rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: .8rem 0;
  padding: 1.1rem 1.3rem; }
.icon { height: 1.05em; margin-right: .4em; vertical-align: -.16em; width: 1.05em; flex: none; }
.icon * { fill: none; stroke: currentColor; stroke-linecap: round; stroke-linejoin: round; stroke-width: 2; }
.passed { color: var(--good); } .missed, .error { color: var(--bad); } .skipped { color: var(--soft); }
.missed, .error { font-weight: 600; }

.verdict { border-radius: 12px; border: 1px solid; padding: 1.1rem 1.3rem; }
.verdict.good { background: var(--good-tint); border-color: color-mix(in srgb, var(--good) 35%, transparent); }
.verdict.bad { background: var(--bad-tint); border-color: color-mix(in srgb, var(--bad) 35%, transparent); }
.verdict .word { font-size: 1.45rem; font-weight: 650; letter-spacing: -.01em; line-height: 1.3; margin: 0; }
.verdict ul { list-style: none; margin: .9rem 0 .1rem; padding: 0; }
.verdict li { border-top: 1px solid color-mix(in srgb, var(--bad) 22%, transparent); padding: .45rem 0; }
.verdict li:last-child { padding-bottom: 0; }

dl.facts { display: grid; gap: .9rem 1.6rem; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr));
  margin: 1.4rem 0 0; }
dl.facts div { min-width: 0; }
dt { color: var(--soft); font-size: .82rem; }
dd { margin: 0; }
nav { border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-top: 1.6rem;
  padding-bottom: .8rem; }
nav a { font-size: .9rem; text-decoration: none; }
nav a:hover { text-decoration: underline; }

.scroll { margin: .5rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { border-bottom: 1px solid var(--faint); padding: .42rem .9rem .42rem 0; text-align: left; vertical-align: top; }
th { border-bottom-color: var(--line); color: var(--soft); font-size: .82rem; font-weight: 500; }
tbody th { border-bottom-color: var(--faint); color: var(--ink); font-size: .9rem; font-weight: 600; }
th:first-child, td:first-child { white-space: nowrap; }
.words { min-width: 15rem; }
tr:last-child > td, tbody tr:last-child > th { border-bottom: 0; }
th:last-child, td:last-child { padding-right: 0; }
.number { padding-left: .6rem; text-align: right; white-space: nowrap; }
.number + :not(.number) { padding-left: 1rem; }
.short { white-space: nowrap; }
.sub { color: var(--soft); display: block; font-size: .84em; font-weight: 400; }
tr.failed > td { background: var(--bad-tint); }
tr.failed > td:first-child { box-shadow: inset 3px 0 0 var(--bad); padding-left: .6rem; }

.title { align-items: baseline; display: flex; flex-wrap: wrap; gap: .1rem .9rem; }
.title h2 { margin-bottom: 0; }
.misses { border-left: 3px solid var(--bad); list-style: none; margin: .7rem 0; padding: .1rem 0 .1rem .9rem; }
.misses li + li { margin-top: .3rem; }
.blame { background: var(--bad-tint); border-radius: 8px; margin: .7rem 0; max-width: none; padding: .6rem .9rem; }
details { margin: .6rem 0; }
summary { color: var(--own); cursor: pointer; font-size: .9rem; width: fit-content; }
summary:focus-visible, a:focus-visible, .scroll:focus-visible { border-radius: 3px; outline: 2px solid var(--own);
  outline-offset: 2px; }

.plot { display: block; font-size: 11.5px; height: auto; min-width: 620px; width: 100%; }
.plot text { fill: var(--soft); }
.plot .grid { stroke: var(--faint); } .plot .edge { stroke: var(--line); }
.plot .stem { stroke: var(--own); stroke-opacity: .22; }
.plot .dot { fill: var(--own); } .plot .ring { fill: var(--card); stroke: var(--own); stroke-width: 1.6; }
.plot .inherited { fill: none; stroke: var(--inherited); stroke-dasharray: 5 3; stroke-width: 1.5; }
.plot .limit { stroke: var(--bad); stroke-width: 1.2; }
.plot .limit-name { fill: var(--bad); paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
.plot .failed .stem { stroke: var(--bad); stroke-opacity: .6; }
.plot .cross { fill: none; stroke: var(--bad); stroke-linecap: round; stroke-width: 2.4; }
.plot .layer:hover .stem { stroke-opacity: 1; }
.key { color: var(--soft); display: flex; flex-wrap: wrap; font-size: .84rem; gap: .1rem 1.3rem;
  margin: .3rem 0 .5rem; }
.key span { align-items: center; display: inline-flex; gap: .45rem; }
.key svg { height: 12px; min-width: 0; width: 24px; }

.sides { display: grid; gap: 1rem 1.2rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.sides > div { max-width: 20rem; min-width: 0; }
.sides h3 { margin: 0 0 .35rem; }
.sides img, .picture { border-radius: 6px; display: block; height: auto; max-width: 100%; }
.sides img { width: 100%; }
.sides ul { font-size: .86rem; list-style: none; margin: .45rem 0 0; padding: 0; }
.sides li { align-items: baseline; display: flex; gap: .5rem; justify-content: space-between; }
.sides li > span:first-child { min-width: 0; overflow-wrap: anywhere; }
.sides li.bars { display: block; }
.sides .short { white-space: normal; }
.bar { background: var(--faint); border-radius: 2px; display: block; height: 4px; margin: .1rem 0 .4rem; }
.bar > span { background: var(--own); border-radius: 2px; display: block; height: 100%; }
.swatch { border: 1px solid var(--line); border-radius: 3px; display: inline-block; height: .8em; margin-right: .45em;
  vertical-align: -.06em; width: .8em; }

.tag { border: 1px solid currentColor; border-radius: 4px; display: inline-block; font-size: .78rem; font-weight: 600;
  line-height: 1.35; margin-right: .4rem; padding: 0 .4rem; }
.leaves { color: var(--bad); } .slow, .risk { color: var(--warn); } .note { color: var(--soft); }
.meaning { display: inline-block; margin: .1rem 1.2rem .1rem 0; }
.finding { border-top: 1px solid var(--faint); padding: .75rem 0; }
.finding:first-of-type { border-top: 0; }
.finding p { max-width: 58rem; }
footer { border-top: 1px solid var(--line); color: var(--soft); font-size: .84rem; margin-top: 3rem;
  padding-top: 1rem; }

@media (max-width: 44rem) {
  main, header { padding-left: 1rem; padding-right: 1rem; }
  header { padding-top: 1.4rem; }
  h1 { font-size: 1.5rem; }
  .card, .verdict { padding: .9rem 1rem; }
  .sides { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .cards thead { clip-path: inset(50%); height: 1px; overflow: hidden; position: absolute; white-space: nowrap;
    width: 1px; }
  .cards, .cards tbody, .cards tr, .cards th, .cards td { display: block; }
  .cards tr { border-top: 1px solid var(--line); padding: .7rem 0; }
  .cards tr:first-child { border-top: 0; }
  .cards tbody th { border: 0; font-size: 1rem; padding: 0 0 .3rem; }
  .cards.cards td, .cards.cards td.number { border: 0; display: flex; gap: 1rem; justify-content: space-between;
    padding: .12rem 0;
    text-align: right; white-space: normal; }
  .cards td::before { color: var(--soft); content: attr(data-name); flex: none; }
  .cards.cards td.words { display: block; min-width: 0; text-align: left; }
  .cards td.words::before { content: none; }
  .cards .sub { display: inline; margin-left: .4em; }
  .cards .words .sub { display: block; margin: 0; }
}
@media print {
  :root { --paper: #fff; --card: #fff; }
  body { font-size: 10.5pt; }
  nav { display: none; }
  main, header { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  .plot { min-width: 0; }
  .card, .verdict, .finding, tr, .sides > div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  a { color: inherit; text-decoration: none; }
  a[href^="https"]::after { content: " (" attr(href) ")"; font-size: .85em; overflow-wrap: anywhere; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
"""No url() and no @import: nothing is fetched."""
