"""Others' logs, recognised by their content and read into one form."""

from rewardshape.logs.log import Log
from rewardshape.logs.read import read_logs

__all__ = ["Log", "read_logs"]
