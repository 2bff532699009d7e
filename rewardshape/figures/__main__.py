"""``python -m rewardshape.figures``."""

import sys

from rewardshape.figures.draw import main

if __name__ == "__main__":
    sys.exit(main())
