"""Published figures, in kind: which figure of ours shows what a paper's figure shows, and in what it differs.

The correspondence is of kind: same quantities on the axes, from one's own runs. Numbers of a paper are not reproduced.
"""

from __future__ import annotations

from typing import NamedTuple


class Likeness(NamedTuple):
    """One kind of figure of a paper, and ours."""

    theirs: str
    ours: str
    differs: str


class Paper(NamedTuple):
    """A paper with the figures of it that can be drawn from one's own runs."""

    title: str
    arxiv: str
    figures: tuple[Likeness, ...]

    @property
    def names(self) -> list[str]:
        """The figures of ours, each once."""
        return list(dict.fromkeys(likeness.ours for likeness in self.figures))


SAME = "own model and pairs"
PAPERS = {
    "alphapo": Paper(
        "AlphaPO: the shape of the reward",
        "2501.03884",
        (
            Likeness(
                "reward over probability by α",
                "reward_shapes",
                "beside it the axis of log-probability, and three more shapes",
            ),
            Likeness(
                "gradient magnitude by α",
                "gradient_magnitude",
                "exact for single pairs with a given Gram matrix",
            ),
            Likeness("margin against likelihood over training", "trajectories", f"{SAME}"),
            Likeness("likelihood and margin at the end by α", "final", f"{SAME}; intervals over pairs"),
            Likeness(
                "distribution of likelihood and margin by α",
                "quantiles",
                f"{SAME}; quartiles and middle nine tenths",
            ),
            Likeness("KL and win rate by α", "win_rate", "win rate by gold reward, no judge model"),
        ),
    ),
    "simpo": Paper(
        "SimPO: a reward without a reference",
        "2405.14734",
        (
            Likeness(
                "reward margins and log-probs as distributions",
                "distributions",
                "log-prob margin, before and after",
            ),
            Likeness("length against log-prob, with rank correlation", "length", SAME),
            Likeness(
                "chosen and rejected over training",
                "displacement",
                f"{SAME}; fixed probe set, intervals over pairs",
            ),
        ),
    ),
    "razin": Paper(
        "Unintentional unalignment: likelihood displacement and CHES",
        "2410.08847",
        (
            Likeness(
                "change of the chosen response by CHES",
                "ches_vs_displacement",
                "every pair with means of fifths; edit distance beside it",
            ),
            Likeness(
                "tokens that gained most", "tokens_gained", "over the whole probe set, with what was lost"
            ),
            Likeness("preferred log-prob falling over training", "displacement", SAME),
        ),
    ),
    "ren": Paper(
        "Learning dynamics of finetuning",
        "2407.10490",
        (
            Likeness(
                "a dozen kinds of response over training",
                "responses",
                "one panel, coloured by kind; greedy tokens in place of the argmax",
            ),
            Likeness("squeezing in a toy vocabulary", "squeezing", "exact softmax, logits as parameters"),
            Likeness("where the probability goes", "destination", "measured, by kind of token"),
            Likeness(
                "heat map of the empirical tangent kernel",
                "kernel",
                "every two responses of 16 pairs, before and after; cosines of whole gradients",
            ),
            Likeness(
                "predicted against measured influence",
                "predicted_vs_measured",
                "first-order prediction from the pair's own gradients",
            ),
        ),
    ),
    "yuan": Paper(
        "Gradient entanglement of margin-based losses",
        "2410.13828",
        (
            Likeness(
                "inner product or cosine of the gradients over training",
                "cosine",
                "median and quartiles over pairs",
            ),
            Likeness(
                "heat map of gradient cosines",
                "overlap_map",
                "pair by pair over training, in place of token by token",
            ),
            Likeness(
                "chosen and rejected by objective",
                "sweep",
                "objectives as the settings of a sweep; paired differences",
            ),
            Likeness("weight ratio by objective", "zoo", "exact, at one mean score"),
        ),
    ),
    "rafailov": Paper(
        "Scaling laws for over-optimization in direct alignment",
        "2406.02900",
        (
            Likeness(
                "gold reward or win rate over √KL, by β or objective",
                "gold_sweep",
                "gold reward by rule or model, no judge; intervals over prompts",
            ),
            Likeness(
                "proxy and gold of one run",
                "gold",
                "implicit reward of the same samples below, best-of-n beside it",
            ),
            Likeness("win rate against KL", "win_rate", "win rate by gold reward, no judge model"),
            Likeness(
                "small multiples over β and size", "grid", "panels by any values that the runs differ in"
            ),
        ),
    ),
    "gao": Paper(
        "Scaling laws for reward model over-optimization",
        "2210.10760",
        (
            Likeness(
                "gold over √KL with the two functional forms",
                "gold",
                "a policy trained on pairs, not by a reward model; errors of both axes fitted",
            ),
            Likeness(
                "several such curves",
                "gold_sweep",
                "by setting of the objective in place of the size of a reward model",
            ),
        ),
    ),
    "dposhift": Paper(
        "DPO-Shift: shifting the distribution of DPO",
        "2502.07599",
        (
            Likeness(
                "chosen log-prob and margin over training by the shift",
                "sweep",
                "the shift as the settings of a sweep; paired differences",
            ),
            Likeness("trade of chosen log-prob against margin", "trajectories", f"{SAME}"),
            Likeness("log-probs before and after as distributions", "distributions", SAME),
        ),
    ),
}


def table() -> str:
    """All of them as Markdown, for the documentation."""
    parts = []
    for name, paper in PAPERS.items():
        parts += [
            f"## {paper.title}",
            f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}): "
            f"`rewardshape figures --paper {name} --runs DIR`",
            "| shown there | ours | command | what differs |\n|---|---|---|---|\n"
            + "\n".join(
                f"| {one.theirs} | {one.ours.replace('_', ' ')} | `rewardshape figures {one.ours}` | {one.differs} |"
                for one in paper.figures
            ),
        ]
    return "\n\n".join(parts) + "\n"
