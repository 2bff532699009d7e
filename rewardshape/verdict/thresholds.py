"""Every threshold of a judgement with its reason, each once. ``docs/diagnose.md`` lists them for users."""

from __future__ import annotations

# One row shows no change of batches; a fixed set against a known reference needs no second.
MIN_ROWS = 2
# A change is said where chance would show as much in this share of runs in which nothing moved (one-sided) …
CHANCE_LIKELY = 0.025
# … and is called clear where it would in this share.
CHANCE_CLEAR = 0.001
# The power with which "the smallest fall that would have been seen" would have been seen.
POWER = 0.8
# A tenth of a nat changes the probability of a whole response by less than 10 %: smaller falls get no word. Per token
# that is a response of a hundred tokens (where lengths are known they are used), in rewards the usual β = 0.1.
SMALLEST = {"nats": 0.1, "nats per token": 0.001, "reward": 0.01}
# A response that lost three nats is a twentieth as likely. "Not displaced" is said only where a fall of this size would
# have been seen; per token and in rewards as above.
MATTERS = {"nats": 3.0, "nats per token": 0.03, "reward": 0.3}
# A run recovered when it is back within noise of its start, or has regained this share of its deepest fall.
REGAINED = 0.8
# A rise was given back where at least this share of it was lost again.
GAVE_BACK = 0.2
# The fall began where it first reached this share of its depth at the end, in the stretch that never came back.
ONSET_SHARE = 0.05
# Training rows are means over a few pairs each: compare means over this share of the run, of this many rows at least.
WINDOW_SHARE, WINDOW_ROWS = 0.2, 3
# Saturated: so much of the gradient that the run began with is left. With the logistic link a pair's gradient is
# 1 − e^−ℓ of the full one, a half at the start, so that this is a loss of 0.05 at a margin of about 5 (σ(5) = 99.3 %).
SATURATED = 0.1
SATURATED_MARGIN, SATURATED_ACCURACY = 5.0, 0.97
# Rows of batches at the end from which that share counts; of fewer only so much of it.
SATURATED_ROWS = 10
# Chance is one half; two points above it are within the noise of an evaluation set of a few hundred pairs.
CHANCE = 0.52
# Pairs of which so many are in order at the start are too easy; rows within this share of a run tell its start.
EASY, EARLY = 0.9, 0.05
# Accuracy that has not grown by as much has hardly moved, unless it stands this high.
HARDLY, HIGH_ACCURACY = 0.1, 0.7
# Fewer pairs in order than this is no noise about a half: training went against their order.
AGAINST = 0.4
# A preference collapses if it was there: accuracy once stood this far above where it ends.
LOST_ACCURACY = 0.05
# Pairs that may be ties before they, and not a lost preference, explain an accuracy at chance.
TIES = 0.05
# A loss that varies by less than a thousandth and rewards below a thousandth: rounding, not training.
STILL_LOSS, STILL_REWARD = 1e-3, 1e-3
STILL_SHARE = (
    0.95  # of the gradient norms must be exactly 0 (some trainers log a first row before the optimiser runs)
)
# Without gradient norms, a run that is long enough to learn and whose loss stays at ln 2 with no trend learns nothing.
STILL_ROWS, AT_LN2 = 8, 0.02
# The held-out loss got worse: above its best by this share, beyond what its scatter explains; or by so much that the
# scatter of no evaluation explains it.
WORSE_LOSS, MUCH_WORSE_LOSS = 0.02, 0.25
# Change points that a held-out curve is tried at, and runs without one that it is set against.
CHANGE_POINTS, NULL_RUNS = 25, 999

# A reward of one at the first logged rows is not what one step from a reference does.
FAR_FROM_ZERO = 1.0
# Rows that lie within this share of a run's steps, or within so many steps, tell where it began.
FIRST_ROWS, FIRST_STEPS = 0.1, 10
# Where the first row comes after more steps than these it may be a fast course: unless it is so large beside all that
# follows.
AT_ONCE, FIRST_SHARE = 2, 0.5
REFERENCE_FREE_LOSSES = ("simpo", "orpo", "cpo", "alphapo")
# With so few evaluations and so many training rows, the training rows tell more.
FEW_EVALUATIONS, MANY_ROWS = 3, 6
# An earlier stop is worth a word if at least this share of the fall came after accuracy stood where it ended.
LATE_SHARE = 0.2
# A run is carried by a single pair where that owns this share of a step's whole gradient, or of the loss, whose mean
# is then so many times the median one and no small one. Heavy tails of a few pairs give a large share by chance: it
# counts from so many pairs on by gradient, from twice as many by loss, and there only far above the second largest.
CARRIED_SHARE, CARRIED_LOSS, CARRIED_LEAST_LOSS = 0.5, 5.0, 1.0
FEWEST_CARRIED, FEWEST_BATCHES = 16, 8
