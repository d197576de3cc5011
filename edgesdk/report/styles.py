"""How a report page looks: light, dark, on a telephone and in print.

Colours are variables, so the plots inside follow them. The contrast of text is at least 4.5 to
1 on its ground in both schemes.
"""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root{color-scheme:light dark;--ground:#fff;--panel:#f6f8fa;--ink:#1a1f26;--muted:#57606a;
--line:#d8dee4;--ours:#0b62c4;--theirs:#b35900;--warm:#c0322b;--good:#176b34;--good-soft:#e3f4e8;
--bad:#a8201a;--bad-soft:#fdeaea;--fair:#7a4b00;--fair-soft:#fdf1d8}
@media (prefers-color-scheme:dark){:root{--ground:#0f141a;--panel:#171d25;--ink:#e6eaef;
--muted:#9aa5b1;--line:#2d3640;--ours:#6cb0ff;--theirs:#f0a35e;--warm:#ff8078;--good:#7ddb98;
--good-soft:#12301d;--bad:#ff9c94;--bad-soft:#3c1717;--fair:#f2c46d;--fair-soft:#372a10}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
-webkit-text-size-adjust:100%}
main,header,footer,nav{max-width:64rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}footer{padding-bottom:2rem;color:var(--muted);font-size:.875rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.25rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.25rem 0 .5rem}
p{margin:.5rem 0;max-width:46rem}header p{max-width:none}a{color:var(--ours)}
header.top{max-width:none;padding-left:0;padding-right:0}
article>header.top h2{border-top:0;padding-top:0;font-size:1.5rem;margin:0 0 .25rem}
.nested h3{font-size:1.2rem;margin:2.25rem 0 .75rem;padding-top:1rem;
border-top:1px solid var(--line)}.nested h4{font-size:1rem;margin:0 0 .5rem}
article+article,section+article{border-top:.3rem solid var(--line);margin-top:3rem}
.sub,figcaption,.note{color:var(--muted)}figcaption,.note{font-size:.875rem}
.sub{margin:0;overflow-wrap:anywhere}
.verdict{margin:1.25rem 0;padding:.875rem 1rem;border-radius:.5rem;border-left:.3rem solid}
.verdict strong{font-size:1.05rem}.verdict p,.verdict ul{margin:.25rem 0 0}
.verdict ul{padding-left:1.1rem}.verdict :is(p,li){color:var(--ink);overflow-wrap:anywhere}
.good{background:var(--good-soft);border-color:var(--good);color:var(--good)}
.bad{background:var(--bad-soft);border-color:var(--bad);color:var(--bad)}
.fair{background:var(--fair-soft);border-color:var(--fair);color:var(--fair)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.625rem;margin:0}
.tiles>div{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;
padding:.6rem .7rem;min-width:0}
.tiles dt{color:var(--muted);font-size:.8125rem}
.tiles dd{margin:0;font-size:1.15rem;font-weight:600;line-height:1.25;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles dd+dd{font-size:.8125rem;font-weight:400;color:var(--muted);margin-top:.15rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:1.5rem}
figure{margin:0;min-width:0}figure h3{margin-top:0}
figure svg{display:block;width:100%;height:auto}
svg text{font-family:inherit}svg *{stroke-linejoin:round;stroke-linecap:butt}
.key{display:inline-flex;gap:1rem;font-size:.875rem;color:var(--muted)}
.key i{display:inline-block;width:.75rem;height:.75rem;border-radius:.15rem;margin-right:.35rem;
vertical-align:-.05rem;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.wide{overflow-x:auto;max-width:100%}.wide+.wide{margin-top:1.25rem}
.pair+.wide,dl.facts+.wide{margin-top:1.5rem}
table{border-collapse:collapse;min-width:min(100%,36rem);max-width:100%;
font-size:.9375rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);font-size:.875rem;padding-bottom:.35rem}
th,td{text-align:left;padding:.4rem 1.25rem .4rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
tr>:last-child{padding-right:0}.long{overflow-wrap:anywhere}ul.notes+.wide{margin-top:1rem}
thead th{color:var(--muted);font-weight:600;font-size:.8125rem;white-space:nowrap}
tbody th{font-weight:500}tbody th:not(.long){white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}td.word{white-space:nowrap}
dl.facts{display:grid;grid-template-columns:minmax(7rem,11rem) minmax(0,1fr);margin:0;
font-size:.9375rem}
dl.facts dt,dl.facts dd{margin:0;padding:.4rem .75rem .4rem 0;
border-bottom:1px solid var(--line)}
dl.facts dt{color:var(--muted)}dl.facts dd{overflow-wrap:anywhere}
ul.notes{margin:.5rem 0;padding-left:1.1rem}
pre{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;padding:.75rem;
overflow-x:auto;font:.875rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
white-space:pre-wrap;overflow-wrap:anywhere}
.sortable button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-align:inherit}.sortable button:focus-visible,a:focus-visible{outline:2px solid var(--ours);
outline-offset:2px}.sortable button:hover{text-decoration:underline}
.sortable [aria-sort] button{color:var(--ink)}
.sortable [aria-sort=ascending] button::after{content:" \u25b2"}
.sortable [aria-sort=descending] button::after{content:" \u25bc"}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.9em}
@media (max-width:36rem){body{font-size:15px}h1{font-size:1.4rem}header{padding-top:1.25rem}
main,header,footer,nav{padding-left:1rem;padding-right:1rem}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}.tiles dd{font-size:1.15rem}
dl.facts{grid-template-columns:1fr}dl.facts dt{border:0;padding-bottom:0;font-size:.8125rem}
dl.facts dd{padding-top:0}
th,td{padding-right:.75rem}
.stack,.stack tbody,.stack tr,.stack td,.stack tbody th{display:block;min-width:0}
.stack thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stack tr{border-bottom:1px solid var(--line);padding:.5rem 0}
.stack td,.stack td.n,.stack tbody th,tbody th:not(.long){white-space:normal}
.stack td,.stack td.n,.stack tbody th{border:0;padding:.1rem 0;text-align:left}
.stack caption{display:block}.stack tbody th{font-weight:600}
.stack td,.stack td.n{display:grid;grid-template-columns:7.5rem minmax(0,1fr)}
.stack td:empty{display:none}.stack td,.stack tbody th{overflow-wrap:anywhere}
.stack.sortable thead{position:static;width:auto;height:auto;clip-path:none;display:block}
.stack.sortable thead tr{display:flex;flex-wrap:wrap;gap:.25rem .5rem;padding:.25rem 0 .5rem}
.stack.sortable thead th{padding:0;border:0}
.stack.sortable thead button{border:1px solid var(--line);border-radius:.375rem;
padding:.3rem .5rem;background:var(--panel)}
.stack td::before{content:attr(data-label);color:var(--muted);font-size:.8125rem}}
@media print{:root{--ground:#fff;--panel:#fff;--ink:#000;--muted:#444;--line:#bbb;
--ours:#0b62c4;--theirs:#b35900;--warm:#c0322b;--good:#176b34;--good-soft:#fff;--bad:#a8201a;--bad-soft:#fff;
--fair:#7a4b00;--fair-soft:#fff}
body{font-size:10.5pt}main,header,footer{max-width:none;padding:0}nav{display:none}
figure,.tiles>div,.verdict,table,tr,dl.facts>*{break-inside:avoid}
.tiles{grid-template-columns:repeat(4,1fr)}h2,h3{break-after:avoid}
.pair{grid-template-columns:1fr 1fr}article+article{break-before:page}}
"""
