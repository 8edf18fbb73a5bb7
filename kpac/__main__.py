"""The `kpac` command, also as `python -m kpac`."""

import sys


def main() -> int:
    """Runs the command line. An interrupt during its imports also gives one line, not a traceback."""
    try:
        from kpac import cli

        return cli.main()
    except KeyboardInterrupt:
        print("\nkpac: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
