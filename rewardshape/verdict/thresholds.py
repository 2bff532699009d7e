"""Every threshold of the diagnosis with its reason. ``docs/diagnose.md`` lists them for users."""

from __future__ import annotations

# One row cannot show a change, and two cannot show a change and its noise unless it dwarfs their difference.
MIN_ROWS = 2
# "Beyond noise": this many standard errors, and never less than Student's t asks at 95 % of so few rows.
BEYOND_NOISE = 2.0
# A dip that was regained is one of many places where one could be seen, so it must stand out further.
DIP_BEYOND_NOISE = 4.0
# Displacement below a tenth of a nat changes the probability of a whole response by less than 10 %; per token a
# hundredth of a nat is the same for a response of ten tokens. In reward units: what that is at the usual β = 0.1.
SMALLEST = {"nats": 0.1, "nats per token": 0.01, "reward": 0.01}
# A run recovered when it is back within noise of its start, or has regained this share of its deepest fall.
REGAINED = 0.8
# The fall began where it first reached this share of its depth at the end (and the noise of a row), in the stretch that
# never came back to the baseline.
ONSET_SHARE = 0.05
# Training rows are means over a few pairs each: compare means over this share of the run, of this many rows at least.
WINDOW_SHARE, WINDOW_ROWS = 0.2, 3
# The gradient of a logistic pair is its loss in the limit: |dℓ/dm| = 1 − e^−ℓ. A loss of 0.05 leaves 5 % of the pull
# (a tenth of what the run began with), at a margin of about 5, where σ(5) = 99.3 %.
SATURATED_LOSS, SATURATED_MARGIN, SATURATED_ACCURACY = 0.05, 5.0, 0.97
# Chance is one half; two points above it are within the noise of an evaluation set of a few hundred pairs.
CHANCE = 0.52
# A loss that varies by less than a thousandth and rewards below a thousandth: rounding, not training.
STILL_LOSS, STILL_REWARD = 1e-3, 1e-3
STILL_SHARE = (
    0.95  # of the gradient norms must be exactly 0 (some trainers log a first row before the optimiser runs)
)
# Without gradient norms, a run that is long enough to learn and whose loss stays at ln 2 with no trend learns nothing.
STILL_ROWS, AT_LN2 = 8, 0.02
# Log-probabilities of training batches vary with the batch; if a fall of this size could hide, nothing is decided.
HIDEABLE = {"nats": 5.0, "nats per token": 0.05, "reward": 0.5}
# The held-out loss got worse: above its minimum by this share and beyond its own noise, at the end of the run.
WORSE_LOSS = 0.02

# A reward of one at the first logged rows, the same for both responses, is not what one step from a reference does.
FAR_FROM_ZERO = 1.0
REFERENCE_FREE_LOSSES = ("simpo", "orpo", "cpo", "alphapo")
# With so few evaluations and so many training rows, the training rows tell more.
FEW_EVALUATIONS, MANY_ROWS = 3, 6
