"""`python -m jitcache`: the same as the `jitcache` command."""

from jitcache.cli.main import main

main()
