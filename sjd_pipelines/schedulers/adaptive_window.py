"""`window="auto"`: the window of each pass, chosen from what passes cost and what they commit.

The aim is committed tokens per second. Both sides of the ratio are learned while pictures are drawn: the seconds of a
pass by window, which depend on the device, and the tokens it commits, which depend on the model. Neither looks at a
draft that is not yet committed, so that the choice biases nothing.
"""

import math
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Hashable

from .declaration import AUTO, settings_of

WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
START = 16
TIMES = 16  # passes whose lower quartile is the cost of a window: what else the machine does only adds to it
PROBES = 4  # passes that make a cost known
BLOCK = 12  # passes between decisions
MEMORY = 2000  # passes after which the tokens of a pass count 1/e
STALE = 500  # passes after which the cost of a window that is not in use is measured anew: machines get busy
# A pass is expected to commit 1 + gain * W / (W + half) tokens. GAIN and HALF, of a model nothing is known of, count
# as much as PRIOR passes, and the curve fitted to all windows as much as CURVE passes at each.
GAIN, HALF, PRIOR, CURVE = 3.0, 16.0, 10.0, 200.0
HALVES = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
DOUBT = 0.5  # spread of the tokens of a pass, relative to their mean


def takes_auto(scheduler: type) -> bool:
    """Whether a scheduler class has a setting `window` that may be "auto"."""
    window = settings_of(scheduler).get("window")
    return window is not None and AUTO in window.choices


class WindowPolicy:
    """Chooses windows by tokens per second, in the manner of bandits on a line (Combes & Proutiere 2014).

    A few passes at a time are spent on one window. The window that does best and its neighbours on the menu `WINDOWS`
    are compared; a neighbour that could be better, by the cost it could have and the spread of what it committed so
    far, is tried. What is committed is smoothed over windows by a saturating curve.

    Args:
        pass_seconds: seconds of a pass by window, in place of the measured ones.
    """

    def __init__(self, pass_seconds: Callable[[int], float] | None = None):
        self.pass_seconds = pass_seconds
        self._key: Hashable = None
        self._menu = WINDOWS
        self._forget()

    def start(self, num_tokens: int, key: Hashable = None) -> None:
        """A picture of `num_tokens` begins. What was learned is kept as long as it and `key` are the same."""
        if (num_tokens, key) != self._key:
            self._key = (num_tokens, key)
            # Windows of more than half a picture are cut at its end before their drafts have settled.
            self._menu = [window for window in WINDOWS if 2 * window <= num_tokens] or [1]
            self._forget()
        self._settle()

    def choose(self) -> int:
        """The window of the next pass."""
        if self._left <= 0:
            before = self._window
            self._window, self._left = self._decide()
            if self._window != before:
                self._settle()
        return self._window

    def observe(self, window: int, seconds: float, tokens: float) -> None:
        """What the pass that was chosen last took, and what it committed per picture."""
        if window != self._window:  # the end of the picture
            return
        self._left -= 1
        self._clock += 1
        self._used[window] = self._clock
        self._times[window].append(self.pass_seconds(window) if self.pass_seconds else seconds)
        self._unsettled -= 1
        if self._unsettled >= 0:
            return
        keep = 1 - 1 / MEMORY
        for other in self._passes:
            self._passes[other] *= keep
            self._tokens[other] *= keep
        self._passes[window] += 1
        self._tokens[window] += tokens

    def costs(self) -> dict[int, float]:
        """Seconds of a pass by window, and on straight lines in between where nothing is measured."""
        known, least = [], math.inf
        for window in reversed(self._menu):
            times = sorted(self._times[window])
            if len(times) >= PROBES:
                # Fewer slots never take more time: where they seem to, something was in their way.
                least = min(least, times[(len(times) - 1) // 4])
                known.insert(0, (window, least))
        costs = {}
        for window in self._menu:
            after = bisect_left(known, (window,))
            if after < len(known) and known[after][0] == window:
                costs[window] = known[after][1]
                continue
            if len(known) == 1:
                costs[window] = known[0][1]
                continue
            after = min(max(after, 1), len(known) - 1)
            (low, start), (high, end) = known[after - 1], known[after]
            line = start + (end - start) * (window - low) / (high - low)
            if window < low:  # at least their share
                line = min(max(line, start * (window + 1) / (low + 1)), start)
            costs[window] = line
        return costs

    def yields(self) -> dict[int, float]:
        """Committed tokens of a pass by window, each the mean of what was seen there and of the curve."""
        best = (math.inf, 0.0, 0.0)
        for half in HALVES:
            # Weighted least squares of tokens - 1 = gain * shape, with the prior as PRIOR passes at START.
            points = [(window, self._tokens[window] / n, n) for window, n in self._passes.items() if n >= 1]
            points.append((START, 1 + GAIN * START / (START + HALF), PRIOR))
            shapes = [window / (window + half) for window, _, _ in points]
            norm = sum(n * shape**2 for shape, (_, _, n) in zip(shapes, points))
            gain = sum(n * shape * (mean - 1) for shape, (_, mean, n) in zip(shapes, points)) / norm
            error = sum(n * (mean - 1 - gain * shape) ** 2 for shape, (_, mean, n) in zip(shapes, points))
            error += math.log(half / HALF) ** 2
            best = min(best, (error, half, gain))
        _, half, gain = best
        return {
            window: (self._tokens[window] + CURVE * (1 + gain * window / (window + half)))
            / (self._passes[window] + CURVE)
            for window in self._menu
        }

    def _decide(self) -> tuple[int, int]:
        """The next window, and for how many passes."""
        for window, last in self._used.items():
            if self._clock - last > STALE:
                self._times[window].clear()
        known = [window for window in self._menu if len(self._times[window]) >= PROBES]
        if len(known) == 1 and known[0] > self._menu[0]:
            return max(window for window in self._menu if window <= max(known[0] / 4, 1)), PROBES
        yields, costs = self.yields(), self.costs()
        # Larger ones are approached in steps: what is extrapolated from small windows says little of large ones.
        reach = [window for window in self._menu if window <= 4 * known[-1]]
        best = max(reach, key=lambda window: yields[window] / costs[window])
        if best not in known:
            return best, PROBES
        index = self._menu.index(best)
        near = [window for window in self._menu[max(index - 1, 0) : index + 2] if window != best]
        for window in near:
            least = costs[best] if window > best else costs[best] * (window + 1) / (best + 1)
            if window not in known and yields[window] / least > yields[best] / costs[best]:
                return window, PROBES

        def hope(window: int) -> float:
            spread = DOUBT / math.sqrt(self._passes[window] + CURVE / 4)
            return yields[window] * (1 + spread) / costs[window]

        tried = max([best, *near], key=hope)
        settling = 0 if tried == self._window else math.ceil(tried / yields[tried])
        return tried, settling + BLOCK

    def _settle(self) -> None:
        """Drafts need as many passes as the window is long to become what they are at this window."""
        self._unsettled = math.ceil(self._window / self.yields()[self._window])

    def _forget(self) -> None:
        self._times: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=TIMES))
        self._clock = 0
        self._used: dict[int, int] = {}
        self._passes: dict[int, float] = defaultdict(float)
        self._tokens: dict[int, float] = defaultdict(float)
        self._window = min(START, self._menu[-1])
        self._left = PROBES
        self._unsettled = 0
