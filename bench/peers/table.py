#!/usr/bin/env python3
"""print the measured figures as a markdown table. usage: table.py results.jsonl   the last record of a kind wins"""
import json
import sys

results = {}
for line in open(sys.argv[1]):
    record = json.loads(line)
    if 'peer' in record:
        results.setdefault(record['peer'], {})[record['figure'], record['n']] = record


def number(x, digits=1):
    return f'{x:.{digits}f}' if isinstance(x, (int, float)) else '-'


def start(r):
    return number(r.get('median_s'), 2) + ('' if r.get('ok', True) else f" FAILED, {r['started']} up")


def memory(r):
    return f"{r['loaded']['pss_kib'] / 1024:.1f}, {r['loaded']['helpers']} / {r['loaded']['threads']}" if r else '-'


def restart(r):
    return f"{number(r.get('median_ms'))} / {number(r.get('p95_ms'))}" if r else '-'


def sigkill(r):
    if not r:
        return '-'
    text = f"{r['alive_after_sigkill']} of {r['children_before']} alive, then {r['after_restart_old']} old and {r['after_restart_new']} new"
    if r['duplicated']:
        text += f", {r['duplicated']} twice"
    if r['readopted'] is not None:
        text += ', taken over' if r['readopted'] else ', not watched'
    return text


columns = [('start (s)', 'start', start), ('MiB, processes / threads', 'memN', memory),
           ('restart after kill -9, median / p95 (ms)', 'restart', restart),
           ('idle CPU (ms)', 'cpu', lambda r: number(r.get('cpu_ms'), 0)),
           ('its SIGKILL, silent children', 'sigkill', sigkill), ('the same, talking', 'sigkill-btalk', sigkill)]
rows = sorted({(n, peer) for peer, of in results.items() for _, n in of})
print('| N | peer |', ' | '.join(title for title, _, _ in columns), '|')
print('|---' * (len(columns) + 2) + '|')
for n, peer in rows:
    print(f'| {n} | {peer} |', ' | '.join(show(results[peer].get((figure, n), {})) for _, figure, show in columns), '|')
