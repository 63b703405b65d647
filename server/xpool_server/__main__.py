"""``python -m xpool_server``: the same as ``xpool server``."""

from xpool_server.cli import main

if __name__ == "__main__":
    main()
