"""The words of a judgement, each with its meaning and what to try."""

from __future__ import annotations

from enum import StrEnum


class Word(StrEnum):
    """What happened to the chosen responses, in a word that knows its meaning and its advice.

    Attributes
    ----------
    meaning : str
        The word in a sentence's end.
    advice : tuple of str
        What to try, the most useful first.
    falls : bool
        Whether a fall is part of the word, so that it is dated.

    Examples
    --------
    >>> Word("collapsed").meaning
    'chosen fell, and a preference that was there is gone'
    """

    meaning: str
    advice: tuple[str, ...]
    falls: bool

    def __new__(cls, word: str, meaning: str, falls: bool, *advice: str) -> Word:
        member = str.__new__(cls, word)
        member._value_ = word
        member.meaning, member.falls, member.advice = meaning, falls, advice
        return member

    DISPLACED = (
        "displaced",
        "the chosen responses ended less likely than they began",
        True,
        "Measure before you mend: a margin loss allows chosen to fall, and the fall harms only if the probability goes "
        "to worse answers. Sample a few prompts with the first and the last checkpoint.",
        "A lower learning rate or fewer steps move the model less, and earn less margin; a likelihood term on the "
        "chosen response (loss_type ['sigmoid', 'sft'] in TRL, rpo_alpha before 0.29; pref_ftx in LLaMA-Factory; DPOP, "
        "CPO) adds a pull upwards. By how much either helps here is to be measured: `rewardshape probe --what-if` "
        "tries them, with intervals.",
    )
    RECOVERED = (
        "recovered",
        "the chosen responses fell and came back",
        True,
        "If you stop early or take a middle checkpoint, stay clear of the dip.",
    )
    NOT_DISPLACED = ("not displaced", "the chosen responses did not end less likely than they began", False)
    SATURATED = (
        "saturated",
        "the gradient has vanished and nothing more is learnt",
        True,
        "Stop here or earlier: these pairs teach no more and further steps only drift.",
        "Raise γ or lower β, or take a link with a target (IPO's squared loss): a pair then keeps its gradient up to a "
        "larger margin, or stops at a set one.",
    )
    COLLAPSED = (
        "collapsed",
        "chosen fell, and a preference that was there is gone",
        True,
        "Go back to a checkpoint before the fall: chosen has lost probability and the order of the pairs is gone.",
        "Lower the learning rate by a factor of 5 to 10, warm up for 10 % of the steps, and clip the gradient at 1: "
        "one step too long leaves the region where the first-order picture holds.",
        "Raise β (with a reference), or add a likelihood term on the chosen response: nothing else in the loss holds "
        "the probabilities up.",
    )
    NOT_TRAINING = (
        "not training",
        "nothing moves",
        False,
        "Check that parameters are trainable and that the optimiser has them: with frozen weights, inactive adapters "
        "or a detached loss the gradient is exactly 0, whatever the accuracy says (it measures the start).",
        "Check that chosen and rejected differ after truncation: if the prompt fills max_length, both are cut to the "
        "same tokens, every margin is 0 and the gradients cancel.",
        "Check the learning rate and its schedule, and bfloat16 weights at so small a rate that updates round away.",
    )
    BROKEN = (
        "broken",
        "the numbers are not finite from some step to the end",
        False,
        "Find the first step that is not finite and what was in its batch: an empty response after truncation gives "
        "0/0 in a per-token mean, float16 overflows, and one bad step poisons the weights. Skip empty rows, use "
        "bfloat16 and clip the gradient.",
        "Start again from a checkpoint before that step: what came after it has no use.",
    )
    UNDETERMINED = ("undetermined", "it cannot be told from what was measured", False)
