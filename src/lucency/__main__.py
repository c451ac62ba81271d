"""`python -m lucency` is the command `lucency`; launchers of several processes need it."""

from lucency.cli.stopping import main

if __name__ == "__main__":
    main()
