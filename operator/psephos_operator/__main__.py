"""`python -m psephos_operator`: the same as `psephos operator`."""

import sys

from psephos_operator.main import main

sys.exit(main())
