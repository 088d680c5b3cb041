"""The report's look: one style sheet, light and dark, nothing fetched from anywhere."""

CSS = """
:root{color-scheme:light dark;
--bg:#f5f6f9;--card:#fff;--ink:#161b26;--soft:#5b6577;--faint:#8a93a5;--rule:#e3e6ee;--hover:#f4f6fb;
--accent:#2456d6;--accent-bg:#eaf0ff;--good:#14794b;--good-bg:#e2f5ea;--warn:#8a5300;--warn-bg:#fdf0d8;
--violet:#6638b6;--violet-bg:#f1eafd;--bad:#b4232c;--bad-bg:#fde8e8;--leaf-s:58%;--leaf-a:52%;--leaf-b:66%;
--fork-ink:30%;--fork-bg:93%;--fork-line:58%;
--tree:#2456d6;--branch:#0b8a8f;--surgery:#8a3fc0;--device:#c2570c;--jpeg:#c0244f;--raw:#9b7208;
--random:#7d8799;--egreedy:#a8620f;--bound:#7a8498;--bandwidth:#6b7a99}
@media (prefers-color-scheme:dark){:root{
--bg:#0e1117;--card:#171b24;--ink:#e8ebf2;--soft:#a3acbd;--faint:#7b8598;--rule:#2a303c;--hover:#1d222d;
--accent:#7ea6ff;--accent-bg:#1b2849;--good:#5fd39a;--good-bg:#123324;--warn:#f0bd6a;--warn-bg:#3a2a10;
--violet:#c1a2ff;--violet-bg:#2a2145;--bad:#ff8a8a;--bad-bg:#431c20;--leaf-s:52%;--leaf-a:56%;--leaf-b:42%;
--fork-ink:78%;--fork-bg:17%;--fork-line:52%;
--tree:#7ea6ff;--branch:#4fd0cf;--surgery:#cf9bff;--device:#ff9f5a;--jpeg:#ff7f9f;--raw:#e0bf55;
--random:#98a2b5;--egreedy:#e8ac5c;--bound:#8d97ab;--bandwidth:#8c9cbd}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1220px;margin:0 auto;padding:36px 24px 64px}
header h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.02em}
header p{margin:0;color:var(--soft)}
h2{font-size:18px;margin:0 0 2px;letter-spacing:-.01em}
section{background:var(--card);border:1px solid var(--rule);border-radius:14px;padding:22px 24px;
margin-top:20px;min-width:0}
section>p.note,figcaption{color:var(--soft);font-size:13.5px;margin:2px 0 14px;max-width:96ch}
.verdict{border-left:5px solid var(--accent);padding:24px 28px}
.verdict.warn{border-left-color:var(--warn)}
.verdict p.lead{font-size:21px;line-height:1.4;font-weight:600;margin:0 0 10px;letter-spacing:-.01em;
max-width:74ch;color:var(--ink)}
.verdict p{margin:6px 0 0;max-width:112ch;color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin-top:20px}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:14px;padding:15px 18px}
.tile b{font-size:26px;line-height:1.35;margin-right:9px;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile .what{color:var(--soft);font-size:13px}
.tile .kind{vertical-align:4px}
.tile .more{color:var(--faint);font-size:13px;margin-top:2px}
.kind{display:inline-block;font-size:11px;line-height:1.5;font-weight:600;padding:0 7px;border-radius:9px;
white-space:nowrap;font-style:normal;background:var(--rule);color:var(--soft);vertical-align:1px}
.kind.measured{background:var(--good-bg);color:var(--good)}
.kind.predicted{background:var(--warn-bg);color:var(--warn)}
.kind.simulated{background:var(--violet-bg);color:var(--violet)}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;margin:18px 2px 0;color:var(--soft);font-size:13px}
.scroll{overflow:auto;margin:0 -8px;padding:0 8px}
.tall{max-height:1800px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:20px;margin-top:20px}
.pair>section,.stack>section:first-child{margin-top:0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}
th,td{padding:8px 9px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-weight:600;color:var(--soft);font-size:12.5px;vertical-align:bottom;line-height:1.35;white-space:normal}
thead tr.group th{white-space:nowrap}
th:first-child,td:first-child,th.text,td.text{text-align:left}
td.text{white-space:normal}
thead tr.group th{border-bottom:0;padding-bottom:0;text-align:center}
thead tr.group th:first-child{text-align:left}
tbody tr:hover{background:var(--hover)}
tbody tr:last-child td{border-bottom:0}
tr.bound td{color:var(--soft);font-style:italic}
tr.chosen td:first-child{font-weight:650}
td.best{font-weight:700;color:var(--good)}
td.best::before{content:"★";font-size:10px;margin-right:5px;vertical-align:1px}
.swatch{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:9px;background:var(--c,var(--faint))}
.pill{display:inline-block;font-size:11px;font-weight:600;padding:0 7px;border-radius:9px;margin-left:8px;
background:var(--accent-bg);color:var(--accent)}
figure{margin:0}
svg{display:block;font-family:inherit}
svg.chart{width:100%;height:auto;overflow:visible}
.pair svg.chart{max-width:640px}
svg text{fill:var(--ink);font-size:11.5px}
.middle{text-anchor:middle}.end{text-anchor:end}.start{text-anchor:start}
.chart .tick{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}
.chart .name{fill:var(--soft);font-size:11.5px}
.chart .barname{fill:var(--soft);font-size:12.5px}
.grid{stroke:var(--rule)}.axis,.notch{stroke:var(--faint)}
.bound{stroke:var(--bound);stroke-dasharray:5 4}
.line{fill:none;stroke:var(--c,var(--faint));stroke-width:2.4;stroke-linejoin:round;stroke-linecap:round}
.line.thin{stroke-width:1.4}
.line.bandwidth{stroke:var(--bandwidth)}
.area{fill:var(--bandwidth);opacity:.18}
.chart .tag{fill:var(--c,var(--soft));font-weight:600;font-size:11.5px}
.mark{fill:var(--c,var(--faint));stroke:var(--card);stroke-width:1.5}
.bubble{fill:var(--c);fill-opacity:.2;stroke:var(--c);stroke-opacity:.65}
.dot{fill:var(--c);fill-opacity:.55}
.bar{fill:var(--c,var(--faint))}
.m-tree{--c:var(--tree)}.m-branch{--c:var(--branch)}.m-surgery{--c:var(--surgery)}.m-device_only{--c:var(--device)}
.m-cloud_jpeg{--c:var(--jpeg)}.m-cloud_raw{--c:var(--raw)}.m-random{--c:var(--random)}.m-egreedy{--c:var(--egreedy)}
.m-bound{--c:var(--bound)}.m-other,.m-plain_tree,.m-actions{--c:var(--faint)}
.tree .card{fill:var(--card);stroke:hsl(var(--h) var(--s) var(--fork-line)/.55)}
.tree .fork{fill:hsl(var(--h) var(--s) var(--fork-bg))}
.tree .forkname{fill:hsl(var(--h) var(--s) var(--fork-ink));font-weight:600;font-size:12px}
.tree .edge{fill:none;stroke:hsl(var(--h) var(--s) var(--fork-line)/.8)}
.tree .start{fill:var(--card);stroke:var(--faint)}
.tree .strong{font-weight:650;font-size:13px}
.tree .small{fill:var(--soft);font-size:11.5px}
.tree .halo{paint-order:stroke;stroke:var(--card);stroke-width:5px;stroke-linejoin:round}
.tree .mono{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--soft)}
.tree .action{fill:var(--ink);font-weight:600}
.tree .kept{fill:var(--faint);font-weight:400}
.tree .cloud{fill:var(--accent-bg)}
.tree .cloudsign{fill:var(--accent)}
.tree .cloudname{fill:var(--accent);font-weight:600;font-size:12px}
.tree .value{font-weight:650;font-size:14.5px;font-variant-numeric:tabular-nums}
.tree .rule{stroke:var(--rule)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:5px 18px;margin:12px 0 0;font-size:13.5px}
dl.wide{grid-template-columns:max-content 1fr max-content 1fr}
@media (max-width:900px){dl.wide{grid-template-columns:max-content 1fr}}
details{margin-top:14px}
summary{cursor:pointer;color:var(--soft);font-size:13.5px}
pre{overflow:auto;background:var(--bg);border:1px solid var(--rule);border-radius:8px;padding:14px 16px;
font:12px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.techniques{display:flex;flex-wrap:wrap;gap:4px 22px;margin-top:12px;font-size:13px;color:var(--soft)}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;color:var(--ink)}
.chip{display:inline-block;margin:2px 6px 2px 0;padding:0 8px;border-radius:7px;background:var(--bg);
border:1px solid var(--rule)}
.tiles.six{grid-template-columns:repeat(auto-fit,minmax(170px,1fr))}
.badge{display:inline-block;font-size:11px;line-height:1.6;font-weight:700;padding:0 8px;border-radius:9px;
white-space:nowrap;letter-spacing:.04em;background:var(--good-bg);color:var(--good);vertical-align:1px}
.badge.alarm{background:var(--bad);color:var(--card)}
section.alarm{border-left:5px solid var(--bad)}
p.alarm{background:var(--bad-bg);color:var(--ink);border-radius:8px;padding:9px 13px;margin:10px 0;max-width:112ch}
.verdict p.alarm{color:var(--ink)}
td .of{color:var(--faint)}
td.off{color:var(--bad);font-weight:650}
td.path{white-space:normal;min-width:230px;max-width:420px}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;margin-top:12px;color:var(--soft);font-size:13px}
.key .swatch{margin-right:7px}
.key .dim{color:var(--faint)}
.p-device{--c:var(--device)}.p-encode{--c:var(--raw)}.p-transfer{--c:var(--violet)}.p-cloud{--c:var(--branch)}
.p-wait{--c:var(--faint)}
.half svg.chart{max-width:640px}
.part{fill:var(--c)}
.chart .inside{fill:var(--card);font-weight:600;font-size:11px}
.chart .strong{fill:var(--ink);font-weight:650}
.cell{fill:var(--c)}
.hatch{fill:none;stroke:var(--ink);stroke-width:1.3;opacity:.75}
.flag{fill:var(--bad)}
.guess{fill:var(--ink);fill-opacity:.6}
.late{stroke:var(--bad);stroke-dasharray:2 3}
.bad{--c:var(--bad)}
.band{fill:var(--good);fill-opacity:.13}
.ringed{stroke:var(--bad);stroke-width:2;fill-opacity:.8}
footer{color:var(--faint);font-size:12.5px;margin-top:26px;text-align:center}
@media (max-width:640px){main{padding:20px 12px 40px}section{padding:16px}.verdict .lead{font-size:18px}
.scroll svg.chart{min-width:470px}.scroll svg.chart.broad{min-width:860px}}
@media print{*{print-color-adjust:exact}.scroll{overflow:visible}section,.tile{break-inside:avoid}
.tall{max-height:none}}
"""
