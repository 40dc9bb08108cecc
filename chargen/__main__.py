"""The ``chargen`` command, which is ``python -m chargen`` too: it owns its process."""

from chargen import process


def main() -> None:
    """Run the command line."""
    process.own()
    from chargen.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
