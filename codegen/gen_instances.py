"""In place of AITER's generator: `python -m jitcache.codegen.gen_instances -a ... -w DIR`.

Takes the same command line, which is that of `jitcache generate --dialect aiter`. An entry
point only: it imports what is downstream of this package, and nothing imports it.
"""

from __future__ import annotations

import sys

from jitcache.cli.main import main

if __name__ == "__main__":
    main(["generate", *sys.argv[1:]])
