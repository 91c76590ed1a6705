"""The command line: one file a subject, imported when it is called.

`main` is the console script's entry; it loads the commands when it runs, so that importing the package costs nothing.
"""


def main() -> None:
    """Run the command line."""
    from spheroidd.daemon.cli.console import app

    app()
