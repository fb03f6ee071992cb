"""`window="auto"`: the window of each pass, chosen from what passes cost and what they commit.

The aim is committed tokens per second. Both sides of the ratio are learned while pictures are drawn: the seconds of a
pass by window, which depend on the device, and the drafts that it accepts, which depend on the model. Neither looks at
a draft that is not yet committed, so that the choice biases nothing.

What is learned is shared by the runs of a model, in its `Memory`. Which window is taken is a run's own affair.
"""

import math
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from threading import Lock

from ..declaration import settings_of
from .declaration import AUTO

WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# Where each window has to be compiled there are fewer.
COMPILED_WINDOWS = (4, 8, 16, 32, 64, 128)
START = 16
TIMES = 16  # passes whose lower quartile is the cost of a window: what else the machine does only adds to it
PROBES = 4  # passes that make a cost known
BLOCK = 12  # passes between decisions
STALE = 500  # passes after which the cost of a window that is not in use is measured anew: machines get busy
MEMORY = 2000  # pictures' passes after which what a pass accepted counts 1/e
MARGIN = 0.03  # by which another window must seem faster: a change costs passes until drafts have settled
# Of a model nothing is known of, a share FIRST of the passes should accept a draft, LATER of those another, and so on.
# That counts as much as PRIOR passes, and what follows from other windows as much as CURVE passes at a window.
FIRST, LATER, PRIOR, CURVE = 0.4, 0.85, 10.0, 200.0
# Drafts enter at the end of the window and get better on their way to its front: a window of w accepts w / (w + AGE)
# of what an endless one would at the same places, and never less than half of it.
AGE = 4
SHARE = 0.05  # of the passes may be spent on a neighbour of the best window, to find out whether it is better
DOUBT = 0.5  # spread of the tokens of a pass, relative to their mean


def takes_auto(scheduler: type) -> bool:
    """Whether a scheduler class has a setting `window` that may be "auto"."""
    window = settings_of(scheduler).get("window")
    return window is not None and AUTO in window.choices


class PassSeconds:
    """What passes cost by window: of one model, device, batch and scheduler. Several runs may tell it at once."""

    def __init__(self) -> None:
        self._times: dict[int, deque[tuple[int, float]]] = defaultdict(lambda: deque(maxlen=TIMES))
        self._passes = 0
        self._lock = Lock()

    def add(self, window: int, seconds: float) -> None:
        """A pass has taken so long."""
        with self._lock:
            self._passes += 1
            self._times[window].append((self._passes, seconds))

    def known(self) -> dict[int, float]:
        """Seconds of a pass, for the windows that were measured lately; they rise with the window."""
        with self._lock:
            old = self._passes - STALE
            # A window in use is measured all the time, however old the first of its times are.
            times = {window: sorted(s for _, s in of) for window, of in self._times.items() if of and of[-1][0] > old}
        known, least = {}, math.inf
        for window in sorted(times, reverse=True):
            if len(times[window]) >= PROBES:
                # Fewer slots never take more time: where they seem to, something was in their way.
                least = known[window] = min(least, times[window][(len(times[window]) - 1) // 4])
        return dict(sorted(known.items()))


def costs(known: Mapping[int, float], menu: Sequence[int]) -> dict[int, float]:
    """Seconds of a pass by window, on straight lines where nothing is measured.

    Args:
        known: seconds by window, in order; one of them at least.
        menu: windows.
    """
    points, found = list(known.items()), {}
    for window in menu:
        if window in known or len(points) == 1:
            found[window] = known.get(window, points[0][1])
            continue
        after = min(max(bisect_left(points, (window,)), 1), len(points) - 1)
        (low, start), (high, end) = points[after - 1], points[after]
        line = start + (end - start) * (window - low) / (high - low)
        if window < low:  # at least their share
            line = min(max(line, start * (window + 1) / (low + 1)), start)
        found[window] = line
    return found


class AcceptedDrafts:
    """How many drafts passes accept by window, of one model and scheduler. Several runs may tell it at once.

    A pass with a large window also shows what a smaller one would have accepted, at the very same place of the very
    same picture: the drafts in front of its end. What differs is that they had longer to get better, see `AGE`.
    """

    def __init__(self) -> None:
        # By window, how many pictures' passes accepted 0, 1, ... window drafts.
        self._seen: dict[int, list[float]] = {}
        self._lock = Lock()

    def add(self, window: int, accepted: Sequence[int]) -> None:
        """A pass has accepted so many drafts of each of its pictures, of the whole window that it could have."""
        with self._lock:
            keep = math.exp(-len(accepted) / MEMORY)
            for counts in self._seen.values():
                counts[:] = [count * keep for count in counts]
            counts = self._seen.setdefault(window, [0.0] * (window + 1))
            for number in accepted:
                counts[number] += 1

    def passes(self) -> dict[int, float]:
        """How many pictures' passes are known by window."""
        with self._lock:
            return {window: sum(counts) for window, counts in self._seen.items()}

    def tokens(self, menu: Sequence[int]) -> dict[int, float]:
        """Committed tokens of a pass by window, each the mean of what was seen there and of the others' curve."""
        with self._lock:
            seen = {window: list(counts) for window, counts in self._seen.items()}
        reached = [PRIOR * _expected(place) for place in range(1, menu[-1] + 1)]  # by place, how often it passed
        tested = [PRIOR * (_expected(place) if place else 1.0) for place in range(menu[-1])]
        age, passes = PRIOR * _aged(START), PRIOR
        direct = {}
        for window, counts in seen.items():
            left = number = sum(counts)
            for place in range(min(window, menu[-1])):
                tested[place] += left
                left -= counts[place]
                reached[place] += left
            age, passes = age + number * _aged(window), passes + number
            direct[window] = (number, sum(index * count for index, count in enumerate(counts)))
        sums, chance, total = [0.0], 1.0, 0.0
        for passed, of in zip(reached, tested):  # the product-limit estimate of Kaplan & Meier 1958
            chance *= passed / of
            total += chance
            sums.append(total)
        found = {}
        for window in menu:
            curve = _aged(window) / (age / passes) * sums[window]
            number, accepted = direct.get(window, (0.0, 0.0))
            found[window] = 1 + (accepted + CURVE * curve) / (number + CURVE)
        return found


def _expected(place: int) -> float:
    """Chance that the first `place` drafts pass, of a model nothing is known of."""
    return FIRST * LATER ** (place - 1)


def _aged(window: int) -> float:
    return max(window, AGE) / (max(window, AGE) + AGE)


class WindowChoice:
    """The windows of one run: those with the most tokens per second, by all that is known so far.

    A run that knows nothing begins with START and a few passes of a smaller window, so that it knows what slots cost.
    From then on it takes the window that seems best by `PassSeconds` and `AcceptedDrafts`, and now and then one beside
    it that could be better.

    Args:
        num_tokens: of a picture.
        seconds: what passes cost.
        drafts: what they accept.
        windows: that there are.
    """

    def __init__(
        self, num_tokens: int, seconds: PassSeconds, drafts: AcceptedDrafts, windows: Sequence[int] = WINDOWS
    ):
        # Windows of more than half a picture are cut at its end before their drafts have settled.
        self._menu = [window for window in windows if 2 * window <= num_tokens] or [1]
        self._num_tokens, self._seconds, self._drafts = num_tokens, seconds, drafts
        known = self._known()
        rates = self._rates(known) if known else {}
        self._home = self._window = max(known, key=rates.get) if known else min(START, self._menu[-1])
        self._window, self._left = self._decide()
        self._settle()

    def choose(self) -> int:
        """The window of the next pass."""
        if self._left <= 0:
            before = self._window
            self._window, self._left = self._decide()
            if self._window != before:
                self._settle()
        return self._window

    def observe(self, window: int, seconds: float | None, counts: Sequence[int], advances: Sequence[int]) -> None:
        """What the pass since the last choice took, how many tokens each picture has now, and how many are new."""
        self._left -= 1
        self._unsettled -= 1
        if seconds is not None:
            self._seconds.add(window, seconds)
        if self._unsettled >= 0:
            return
        # At the end of a picture part of the window stands after it.
        whole = [gain - 1 for count, gain in zip(counts, advances) if self._num_tokens - (count - gain) > window]
        if whole:
            self._drafts.add(window, whole)

    def _known(self) -> dict[int, float]:
        return {window: seconds for window, seconds in self._seconds.known().items() if window in self._menu}

    def _rates(self, known: Mapping[int, float]) -> dict[int, float]:
        """Tokens per second by window."""
        seconds, tokens = costs(known, self._menu), self._drafts.tokens(self._menu)
        return {window: tokens[window] / max(seconds[window], 1e-9) for window in self._menu}

    def _decide(self) -> tuple[int, int]:
        """The next window, and for how many passes."""
        known = self._known()
        if not known:
            return self._home, PROBES
        if len(known) == 1 and len(self._menu) > 1:
            half = [window for window in self._menu if 2 * window <= self._home]
            return (half[-1] if half else self._menu[1]), PROBES
        rates = self._rates(known)
        # Larger ones are approached in steps: what is extrapolated from small windows says little of large ones.
        reach = [window for window in self._menu if window <= 4 * max(known)]
        best = max(reach, key=rates.get)
        if rates[best] > (1 + MARGIN) * rates[self._home]:
            self._home = best
        if self._home not in known:
            return self._home, PROBES
        tried = self._worth_a_try(rates)
        return tried, BLOCK + (0 if tried == self._window else self._passes_to_settle(tried))

    def _worth_a_try(self, rates: Mapping[int, float]) -> int:
        """The best window, or one beside it that has had few passes and could be better."""
        passes = self._drafts.passes()
        index, allowed = self._menu.index(self._home), SHARE * sum(passes.values()) - BLOCK

        def hope(window: int) -> float:
            return rates[window] * (1 + DOUBT / math.sqrt(passes.get(window, 0.0) + CURVE / 4))

        near = [window for window in self._menu[max(index - 1, 0) : index + 2] if passes.get(window, 0.0) <= allowed]
        tried = max(near, key=hope, default=self._home)
        return tried if hope(tried) > rates[self._home] else self._home

    def _passes_to_settle(self, window: int) -> int:
        """Drafts need as many passes as the window is long to become what they are at this window."""
        return math.ceil(window / self._drafts.tokens(self._menu)[window])

    def _settle(self) -> None:
        self._unsettled = self._passes_to_settle(self._window)
