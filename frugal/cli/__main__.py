"""python -m frugal.cli"""

import sys

from . import main

sys.exit(main())
