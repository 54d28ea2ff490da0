"""Texts that mean something to whoever does not expect them, each by the name of what it attacks."""

from __future__ import annotations

TEXTS = {
    "sql": '"; DROP TABLE job;--',
    "sql-quote": "' OR '1'='1",
    "sql-copy-end": "\\.",
    "sql-copy-null": "\\N",
    "sql-array": '{"a",NULL}',
    "html-script": "<script>alert(1)</script>",
    "html-attribute": '" onmouseover="alert(1)',
    "html-entity": "&lt;b&gt;",
    "template": "{{7*7}}${7*7}<%= 7*7 %>",
    "log-line": 'x\r\n{"event": "forged", "level": "info"}',
    "header-split": "x\r\nSet-Cookie: a=b",
    "line-separator": "a\u2028b\x85c\x0bd",
    "right-to-left": "\u202egnp.exe",
    "zero-width": "ad\u200bmin\u2060",
    "ansi-escape": "\x1b[2J\x1b]0;owned\x07",
    "markup": "[bold red]x[/]",
    "formula": "=cmd|'/c calc'!A0",
    "formula-at": "@SUM(1)",
    "formula-sign": "+1+1",
    "formula-minus": "-1-1",
    "formula-tab": "\t=1",
    "format": "%s%n{0}{event}",
    "path": "../../etc/passwd",
    "bom": "\ufeffx",
    "combining": "e\u0301" * 20,
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "proto": "__proto__",
}
