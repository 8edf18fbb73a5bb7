"""The `kpac` command, also as `python -m kpac`."""

import sys


def main() -> int:
    """Runs the command line; an interrupt that comes before that is there to answer it is one line, too."""
    try:
        from kpac import cli

        return cli.main()
    except KeyboardInterrupt:
        print("\nkpac: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
