"""The ``chargen`` command, which is ``python -m chargen`` too: it owns its process."""

import sys

try:
    from chargen import process
except KeyboardInterrupt:  # whose handler is not there yet
    sys.exit(130)


def main() -> None:
    """Run the command line."""
    try:
        process.own()
        from chargen.cli import main as commands

        commands()
    except KeyboardInterrupt:
        sys.exit(process.INTERRUPTED)
    finally:
        process.finish()


if __name__ == "__main__":
    main()
