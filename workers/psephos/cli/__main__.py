"""`python -m psephos.cli`: the same as `psephos`."""

from psephos.cli import main

main()
