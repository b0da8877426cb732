"""`python -m edged` is `edged`."""

from edged.cli.main import main

if __name__ == "__main__":
    main()
