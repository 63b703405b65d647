"""``python -m xpool``: the same as ``xpool``."""

from xpool.cli import main

if __name__ == "__main__":
    main()
