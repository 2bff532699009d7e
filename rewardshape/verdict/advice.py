"""What to try next, with the reason from the theory, for each verdict.

The theory is one line: with gradient weights w_w and w_l and the Gram matrix (a, b, c) of the pair's gradients, a step
moves the chosen score by η·(w_w·a − w_l·b). The chosen response falls when b/a > w_w/w_l, that is when chosen and
rejected share so much gradient that pushing one down drags the other along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rewardshape.logs.names import SERIES

if TYPE_CHECKING:
    from rewardshape.verdict.judge import Verdict

_ADVICE = {
    "displaced": [
        "Measure before you mend: a margin loss allows chosen to fall, and the fall harms only if the probability goes "
        "to worse answers. Sample a few prompts, or run `rewardshape probe` on your pairs.",
        "Look at the pairs: chosen falls when its gradient overlaps the rejected one's by more than w_w/w_l (1 for DPO "
        "and SimPO), so near-duplicates and pairs that differ in a few tokens drive it. Drop those with the highest "
        "CHES score, or draw chosen and rejected further apart.",
        "Lower the learning rate, train for fewer steps, or raise β: the path of (chosen, rejected) is fixed by the "
        "pairs and the reward shape; these three only decide how far along it the run goes, and with a larger β the "
        "same margin is reached sooner.",
        "Add a likelihood term on the chosen response (rpo_alpha in TRL, pref_ftx in LLaMA-Factory, DPOP, CPO): it "
        "raises w_w, so that w_w/w_l can exceed the overlap.",
        "Bend the reward: with α below 0, w_w/w_l = e^-αΔ exceeds 1 once the pair is in order by Δ.",
    ],
    "recovered": [
        "Nothing to mend at the end of the run. If you stop early or take a middle checkpoint, stay clear of the dip.",
    ],
    "not displaced": [
        "Nothing to mend. If the margin is small, train longer or raise the learning rate, and watch the chosen "
        "responses while you do.",
    ],
    "saturated": [
        "Stop here or earlier: with the logistic link a pair's gradient is at most its loss, so these pairs teach no "
        "more and further steps only drift.",
        "If accuracy was near 1 from the start, the pairs are too easy: chosen and rejected differ by style, length or "
        "source. Draw both from the model itself, or drop pairs that the reference already orders by a wide margin.",
        "Raise γ or lower β, or take a link with a target (IPO's squared loss): a pair then keeps its gradient up to a "
        "larger margin, or stops at a set one.",
    ],
    "collapsed": [
        "Go back to a checkpoint before the fall: both responses have lost probability and their order is gone.",
        "Lower the learning rate by a factor of 5 to 10, warm up for 10 % of the steps, and clip the gradient at 1: "
        "one step too long leaves the region where the first-order picture holds.",
        "Raise β (with a reference), or add a likelihood term on the chosen response: nothing else in the loss holds "
        "the probabilities up.",
        "Check the labels: where chosen and rejected are swapped in part of the data, the two parts pull against each "
        "other.",
    ],
    "not training": [
        "Check that parameters are trainable and that the optimiser has them: with frozen weights, inactive adapters "
        "or a detached loss the gradient is exactly 0, whatever the accuracy says (it measures the start).",
        "Check that chosen and rejected differ after truncation: if the prompt fills max_length, both are cut to the "
        "same tokens, every margin is 0 and the gradients cancel.",
        "Check the learning rate and its schedule, and bfloat16 weights at so small a rate that updates round away.",
    ],
    "undetermined": [
        "Log rewards/chosen, rewards/rejected and logps/chosen on a fixed evaluation set, before the first step and "
        "every few steps: a margin alone grows whether chosen rises or falls.",
    ],
}
_NONFINITE = (
    "NaN or infinity: an empty response after truncation gives 0/0 in a per-token mean, float16 overflows, and one bad "
    "step poisons the weights. Find the first such step, skip empty rows, use bfloat16 and clip the gradient."
)


def advice_for(verdict: Verdict) -> list[str]:
    """Sentences to act on, the most useful first."""
    advice = list(_ADVICE[verdict.verdict])
    if verdict.over_optimized:
        advice.insert(
            0,
            f"Take the checkpoint of step {verdict.best_step}: the held-out measure was best there and got worse while "
            "the training margin went on growing.",
        )
    if verdict.verdict == "not displaced" and _fell_from_peak(verdict):
        advice.insert(
            0,
            f"Consider the checkpoint of step {verdict.highest_step}: chosen peaked there and has been falling since, "
            "which is displacement that has not yet reached the start.",
        )
    if set(verdict.nonfinite_series) & set(
        SERIES.values()
    ):  # not logits over masked entries, nor side series
        advice.append(_NONFINITE)
    if verdict.verdict in ("displaced", "not displaced") and "evaluation rows" in verdict.missing:
        advice.append(
            "Hold out a fixed set of pairs and evaluate it from step 0: batches hide small changes."
        )
    return advice


def _fell_from_peak(verdict: Verdict) -> bool:
    if verdict.highest is None or verdict.depth is None or not verdict.depth_noise or verdict.highest <= 0:
        return False
    fall = verdict.highest + verdict.depth
    return fall > 4 * verdict.depth_noise and fall > 0.25 * verdict.highest
