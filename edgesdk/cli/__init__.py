"""The command line: parse, call one verb, show. The only place that prints or exits.

One module per subcommand, found through the table in `edgesdk.cli.app` and imported only when
it is asked for; inside a command, libraries are imported where they are used. Errors become
messages and exit codes in `edgesdk.cli.failures`, values become tables and JSON in
`edgesdk.cli.output`.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command in ``sys.argv`` and exit with its code."""
    import sys

    try:
        from edgesdk.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were loading, or once more while it was told
        from edgesdk.cli.failures import interrupted

        code = interrupted(sys.argv[1:])
    sys.exit(code)
