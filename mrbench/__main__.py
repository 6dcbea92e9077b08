"""`python -m mrbench` is `mrbench`."""

from mrbench.cli.app import main

if __name__ == "__main__":
    main()
