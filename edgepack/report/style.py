"""The look of a report: light and dark by the reader's own setting, and on paper."""

from __future__ import annotations

STYLE = """
:root{--page:#fff;--text:#1b1f24;--faint:#5b6570;--rule:#d5dae0;--bar:#4a76a8;--float:#b4bec9;--mark:#c2410c;
--good:#2f7d4f;--poor:#a86400;--bad:#c02626}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--text:#e4e8ec;--faint:#9aa5b1;--rule:#343b44;--bar:#6b9bd1;
--float:#56626f;--mark:#fb923c;--good:#5fbf85;--poor:#e0a53c;--bad:#ff6b6b}}
body{background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;
padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem}h2{font-size:1.3rem;margin-top:2.5rem;border-bottom:1px solid var(--rule)}
h3{font-size:1.05rem;margin:1.8rem 0 .4rem}
.note,footer,figcaption{color:var(--faint);font-size:.9rem}footer{margin-top:3rem;border-top:1px solid var(--rule)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{text-align:left;vertical-align:top;min-width:2ch;padding:.25rem .8rem .25rem 0
;border-bottom:1px solid var(--rule)}
th{font-weight:600;color:var(--faint);white-space:nowrap}
.number{font-variant-numeric:tabular-nums;white-space:nowrap}tr.chosen{font-weight:700}
summary{cursor:pointer}code{font-family:ui-monospace,monospace;font-size:.9em}
svg{display:block;width:100%;height:auto;margin:.4rem 0;overflow:visible}
text{fill:var(--text);font:13px system-ui,sans-serif}text.small{fill:var(--faint);font-size:11px}
.bar{fill:var(--bar)}.good{fill:var(--good)}.poor{fill:var(--poor)}.bad{fill:var(--bad)}
.text-good{color:var(--good)}.text-poor{color:var(--poor)}.text-bad{color:var(--bad)}
.axis{stroke:var(--faint)}.grid-line{stroke:var(--rule);stroke-dasharray:2 4}
.limit{stroke:var(--bad);stroke-dasharray:6 4}.whisker{stroke:var(--bar);stroke-width:3}
.dot{fill:var(--bar);stroke:var(--bar);stroke-width:2}.dot.chosen{fill:var(--mark);stroke:var(--mark)}
.dot.beaten{fill:var(--page)}.front{fill:none;stroke:var(--bar);stroke-dasharray:3 3}
.float{fill:var(--float)}.quantized{fill:none;stroke:var(--mark);stroke-width:1.5}
.text-float{color:var(--float)}.text-quantized{color:var(--mark)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem}figure{margin:0}
@media print{body{max-width:none;margin:0}section,figure{break-inside:avoid-page}}
"""
