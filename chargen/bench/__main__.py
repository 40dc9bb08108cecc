"""``python -m chargen.bench SIDE SETTINGS``: the process of one side, named ``module.function``, with its settings."""

from chargen.process import own

if __name__ == "__main__":
    own()
    import json
    import sys
    from importlib import import_module

    module, function = sys.argv[1].split(".")
    getattr(import_module(f"chargen.bench.{module}"), function)(json.loads(sys.argv[2]))
