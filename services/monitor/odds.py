"""How much a model may answer by the odds that it is the better one, and how careful a promotion must be; pure.

A share may follow the odds where a promotion needs proof: it is taken back with the next block, and waiting for proof costs rows.
"""

from __future__ import annotations

FIRST_SHARE = 0.1
SHARES = ((0.55, FIRST_SHARE), (0.6, 0.5), (0.7, 1.0))  # of entities, by the chance that the model is better
LEADING_SHARE = 0.9  # from which on a challenger gives nearly all answers
SLACK = 0.1  # by which the chance must fall short of a share's before it is taken back: no flapping at every block
UNHEARD_SHARE = 0.5  # before production's own rows have been heard: what was held out may mislead
UNHEARD_GAIN = 0.3  # of production's loss, held out, from which on nobody need be heard first: no choice among few is lucky by so much
PRIOR_DEVIATION = 0.2  # of production's loss: what candidates differ by where something has changed
# Shares of production's loss: up to the first the bound counts in full, from the second on least of it, about two standard errors.
SMALL_GAIN, LARGE_GAIN, CAUTION_MIN = 0.1, 0.5, 0.5


def next_share(held: float, chance: float, most: float) -> float:
    """The share after one that is `held`, at most `most`: up as soon as the chance allows it, down when it surely does not."""
    share = min(most, _share_at(chance))
    return share if share >= held else min(most, held, _share_at(chance + SLACK))


def _share_at(chance: float) -> float:
    return next((share for least, share in reversed(SHARES) if chance >= least), 0.0)


def unheard_share(gained: float, pace: int) -> float:
    """What a challenger may answer before production has been heard; `gained`: its held-out gain as a share of production's loss."""
    return 1.0 if pace == 1 and gained >= UNHEARD_GAIN else UNHEARD_SHARE


def caution(gained: float, pace: int) -> float:
    """The part of the bound that a gain, as a share of production's loss, must exceed.

    A change can be taken back, so both errors cost rows: of a small gain a wrong promotion costs more than waiting does, of a
    large one waiting costs more than the few wrong promotions. Where gains come in bursts, large ones are nothing special.
    """
    return 1.0 if pace > 1 else min(1.0, max(CAUTION_MIN, (LARGE_GAIN - gained) / (LARGE_GAIN - SMALL_GAIN)))
