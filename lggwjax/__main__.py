"""``python -m lggwjax``."""

import sys

from lggwjax.cli import main

sys.exit(main())
