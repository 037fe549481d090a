"""`guntainer schema [-o FILE]`: the JSON Schema of a job file, with which editors complete and check."""

from __future__ import annotations

from guntainer.cli import files, show
from guntainer.cli.parsing import Parser


def parser() -> Parser:
    p = Parser(
        prog="guntainer schema",
        description="Print the JSON Schema (draft 2020-12) of a job file, with which editors complete and check what is written.",
        epilog="In a TOML file, `#:schema FILE` as the first line names it; in a YAML file,"
        " `# yaml-language-server: $schema=FILE`.",
    )
    p.add_argument("-o", "--output", metavar="FILE", help="write it there, whole or not at all")
    p.add_argument("--debug", action="store_true", help="tracebacks")
    return p


def main(words: list[str]) -> int:
    import json

    from guntainer.jobs.schema import schema

    args = parser().parse(words)
    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if args.output in (None, "-"):
        show(text)
    else:
        files.write_whole(args.output, text, replace=True)
    return 0
