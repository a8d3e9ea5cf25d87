"""`python -m edgecap`."""

import sys

from edgecap.cli.main import main

sys.exit(main())
