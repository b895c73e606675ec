"""`python -m fedge`: the command line where its script is not on the path."""

from fedge.cli import main

if __name__ == "__main__":
    main()
