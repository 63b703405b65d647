"""``python -m xpool_registry``: the same as ``xpool registry``."""

from xpool_registry.cli import registry_app

if __name__ == "__main__":
    registry_app(prog_name="python -m xpool_registry")
