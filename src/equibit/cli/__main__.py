"""`python -m equibit.cli`."""

import sys

from equibit.cli import main

sys.exit(main())
