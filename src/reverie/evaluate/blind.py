"""A page on which a person votes: two clips of one start and the same actions, left and right by lot, names hidden."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reverie.errors import DataError
from reverie.evaluate.page import Report

QUESTIONS = ("obeys its keys better", "looks more real", "would you rather play")

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Which is better?</title>
<meta name="viewport" content="width=device-width"><style>
body{font:16px/1.45 system-ui,sans-serif;max-width:1000px;margin:1.5rem auto;padding:0 1rem;color:#212529}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}video{width:100%;background:#000;image-rendering:auto}
.ask{display:grid;grid-template-columns:1fr auto auto auto;gap:.4rem;align-items:center;margin:.5rem 0}
button{font:inherit;padding:.35rem .9rem;border:1px solid #adb5bd;border-radius:6px;background:#fff;cursor:pointer}
button.on{background:#1c7ed6;color:#fff;border-color:#1c7ed6}button:disabled{opacity:.4;cursor:default}
#bar{height:6px;background:#e9ecef;border-radius:3px}
#bar i{display:block;height:100%;background:#1c7ed6;border-radius:3px}
table{border-collapse:collapse}td,th{padding:.3rem .9rem;border-bottom:1px solid #dee2e6;text-align:left}
</style><h1>Which is better?</h1><div id="bar"><i></i></div><main></main><script>
const D=__DATA__;const KEY="reverie-blind-"+D.id;let saved={};
try{saved=JSON.parse(localStorage.getItem(KEY)||"{}")}catch(e){}
const votes=saved.votes||[];let at=votes.length,now={};
const main=document.querySelector("main");
const el=(tag,text,props)=>Object.assign(document.createElement(tag),{textContent:text||""},props||{});
function keep(){try{localStorage.setItem(KEY,JSON.stringify({votes}))}catch(e){}}
function bar(){document.querySelector("#bar i").style.width=100*at/D.pairs.length+"%"}
function show(){bar();main.replaceChildren();now={};if(at>=D.pairs.length)return finish();
 const p=D.pairs[at];main.append(el("p",`Pair ${at+1} of ${D.pairs.length}. Both began in the same picture and were `+
 `given the same keys, drawn below each.`));const row=el("div","",{className:"pair"});
 p.sides.forEach((s,i)=>{const box=el("div");const v=el("video","",{src:"data:video/mp4;base64,"+s.video,loop:true,
 muted:true,autoplay:true,playsInline:true});box.append(el("strong",i?"Right":"Left"),v);row.append(box)});
 main.append(row);const next=el("button","Next",{disabled:true,onclick:()=>{
 votes.push({pair:p.name,left:p.sides[0].is,right:p.sides[1].is,answers:now});at++;keep();show()}});
 D.questions.forEach(q=>{const line=el("div","",{className:"ask"});line.append(el("span","Which "+q+"?"));
 ["left","same","right"].forEach(a=>{const b=el("button",a,{onclick:()=>{now[q]=a;
 line.querySelectorAll("button").forEach(x=>x.className=x===b?"on":"");
 next.disabled=Object.keys(now).length<D.questions.length}});line.append(b)});main.append(line)});
 const again=el("button","Play both again",{onclick:()=>main.querySelectorAll("video").forEach(v=>{v.currentTime=0;
 v.play()})});main.append(again," ",next)}
function open_(code){return D.names[parseInt(atob(code).slice(-1))]}
function finish(){main.append(el("p","Done. Thank you. This is what you voted for:"));
 const t=el("table");const head=el("tr");
 ["question",...D.names,"same"].forEach(h=>head.append(el("th",h)));t.append(head);
 const named=votes.map(v=>({pair:v.pair,left:open_(v.left),right:open_(v.right),answers:v.answers}));
 D.questions.forEach(q=>{const line=el("tr");line.append(el("td",q));const won=n=>named.filter(v=>
 v[v.answers[q]]===n).length;[...D.names.map(won),named.filter(v=>v.answers[q]==="same").length].forEach(n=>
 line.append(el("td",String(n))));t.append(line)});main.append(t);
 const file=new Blob([JSON.stringify({page:D.id,names:D.names,votes:named},null,1)],{type:"application/json"});
 main.append(el("p"),el("a","Save the votes (JSON)",{href:URL.createObjectURL(file),download:"votes-"+D.id+".json"}));
 main.append(" ",el("button","Vote again",{onclick:()=>{votes.length=0;at=0;keep();show()}}))}
show();</script></html>
"""


def write_blind(reports: Sequence[Report], path: Path) -> Path:
    """Write the page, with all clips inside.  Raises DataError where the reports have no clips in common."""
    lot = secrets.SystemRandom()
    pairs: list[dict[str, Any]] = []
    for game in reports[0].raw["games"]:
        for file in sorted((reports[0].folder / "clips").glob(f"{game}-short-*.mp4")):
            other = reports[1].folder / "clips" / file.name
            if other.is_file():
                sides = [_side(file, 0), _side(other, 1)]
                lot.shuffle(sides)
                pairs.append({"name": file.stem, "sides": sides})
    if not pairs:
        raise DataError(
            f"{reports[0].folder} and {reports[1].folder} have no clips of the same starts; evaluate both with --videos"
        )
    lot.shuffle(pairs)
    data = {
        "id": secrets.token_hex(4),
        "names": [report.label for report in reports],
        "questions": QUESTIONS,
        "pairs": pairs,
    }
    text = json.dumps(data).replace("<", "\\u003c")
    path.write_text(PAGE.replace("__DATA__", text), encoding="utf-8")
    return path


def _side(file: Path, which: int) -> dict[str, str]:
    """The clip and which side it is of, the latter so that a glance at the page's source does not give it away."""
    code = base64.b64encode(f"{secrets.token_hex(6)}{which}".encode()).decode()
    return {"video": base64.b64encode(file.read_bytes()).decode(), "is": code}
