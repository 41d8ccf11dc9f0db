"""``python -m lpipstore`` is the command ``lpipstore``."""

from .workflows.cli.app import main

if __name__ == "__main__":
    main()
