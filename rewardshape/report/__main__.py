"""``python -m rewardshape.report``."""

import sys

from rewardshape.report.command import main

if __name__ == "__main__":
    sys.exit(main())
