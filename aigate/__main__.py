"""The `aigate` command. `serve` and `sim` go straight to their module: a server process keeps what it imports for its whole life."""

import sys


def main() -> None:
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if command == ["serve"]:
        from aigate.serve import main as run
    elif command == ["sim"]:
        from aigate.sim.__main__ import main as run
    else:
        from aigate.cli.app import main as run

        arguments = sys.argv[1:]
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
