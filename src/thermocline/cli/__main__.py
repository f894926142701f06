"""``python -m thermocline.cli``: the command, where its script is not on the path."""

import sys

from thermocline.cli import main

sys.exit(main())
