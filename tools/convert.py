"""Convert a weight file between nlnet and the code bases that published such networks.

Code in the file is never run. Every key must be known: otherwise the unknown keys are listed and
nothing is written. A .json file of a code base's own settings becomes an experiment file with the
same network.
"""

from pathlib import Path

from nlnet.cli.tool import run_parser


def main() -> None:
    from nlnet.jobs.convert_arguments import parse_arguments

    args = parse_arguments(__doc__)
    from nlnet.cli.compose import compose_run
    from nlnet.jobs.convert import convert, convert_settings

    if args.source.endswith(".json"):
        convert_settings(Path(args.source), args.target, args.from_)
        return
    convert(
        args.source,
        args.target,
        from_=args.from_,
        to=args.to,
        run=None if args.experiment is None else compose_run(args.experiment),
        inflation=args.inflation,
        rewrites=args.rewrite,
    )


if __name__ == "__main__":
    run_parser(main)
