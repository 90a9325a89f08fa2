"""`python -m cli`: the same as `model-manager`."""

import sys

from cli import main

sys.exit(main())
