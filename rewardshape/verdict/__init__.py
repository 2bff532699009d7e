"""The one voice: evidence → word, sentences, advice."""

from rewardshape.verdict.judge import Verdict, judge, judge_all
from rewardshape.verdict.words import Word

__all__ = ["Verdict", "Word", "judge", "judge_all"]
