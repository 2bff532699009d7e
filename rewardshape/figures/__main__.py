"""``python -m rewardshape.figures``."""

import sys

from rewardshape.figures.command import main

if __name__ == "__main__":
    sys.exit(main())
