"""`python -m psephos.kubectl`: the same as `kubectl psephos`."""

from psephos.kubectl import main

main()
