"""`fedge.progress` in words: the short line that a live bar begins with, and whole lines for logs."""

import time

from fedge.progress import EPOCH, Progress

LABELS = {
    "ray": "starting Ray",
    "waiting": "waiting for a run that prepares the same",
    "reading": "reading data",
    "checking": "checking data",
    "network": "checking network",
    "dividing": "dividing data",
    "writing": "storing data",
    "factory": "factory model",
    "hosts": "starting hosts",
    "importing": "importing",
    "forecast": "forecasting",
    "listing": "listing",
    "clearing": "clearing",
    "timing": "timing steps",
}
_COUNTED = ("importing", "forecast", "listing", "clearing", "timing")  # in things; the others in shares
_SHOWN_S = 1.0  # what takes less is not foretold


def counts(progress: Progress) -> str:
    """How far it is: "epoch 3/5", "1,200/5,000", "41%"; empty where that is not known."""
    if progress.phase == "factory":
        epochs = progress.of // EPOCH
        return f"epoch {min(progress.done // EPOCH + 1, epochs)}/{epochs}" if epochs else ""
    if progress.phase in _COUNTED:
        return f"{progress.done:,}" + (f"/{progress.of:,}" if progress.of else "") if progress.done else ""
    return f"{100 * progress.done // progress.of}%" if progress.of and progress.done else ""


def ending(progress: Progress, took_s: float) -> str | None:
    """What is said when preparation is over; None where it is not."""
    if progress.phase == "cached":
        return "data and factory model were prepared before: taken from the cache"
    if progress.phase != "prepared":
        return None
    took = f"data and factory model prepared in {seconds(took_s)}"
    if progress.accuracy is None:
        return took
    return f"{took}, training accuracy {percent(progress.accuracy)}"


class Pace:
    """When a phase began, and how long it will take. `started_s`: of the first of all, but for Ray's start."""

    def __init__(self) -> None:
        self.started_s = self._since_s = time.monotonic()
        self._first = 0
        self._spent: list[tuple[str, float]] = []
        self.latest: Progress | None = None

    def take(self, progress: Progress) -> bool:
        """Note it; whether a phase begins with it."""
        begins = self.latest is None or self.latest.phase != progress.phase
        if begins:
            now_s = time.monotonic()
            if self.latest is not None:
                self._spent.append((self.latest.phase, now_s - self._since_s))
            self._since_s, self._first = now_s, progress.done
            if self.latest is None or self.latest.phase == "ray":
                self.started_s = self._since_s
        self.latest = progress
        return begins

    @property
    def took_s(self) -> float:
        """Since the first phase; Ray's start is not counted."""
        return time.monotonic() - self.started_s

    def spent(self) -> str:
        """What the phases took that are over and were not told of before, in a line; "" for none."""
        told, self._spent = [f"{LABELS[phase]} {seconds(time_s)}" for phase, time_s in self._spent], []
        return ", ".join(told)

    def left_s(self) -> float | None:
        """Of the present phase; None where nothing tells."""
        now = self.latest
        if now is None or now.of <= now.done or now.done <= self._first:
            return None
        return (time.monotonic() - self._since_s) * (now.of - now.done) / (now.done - self._first)

    def line(self) -> str:
        """The present phase for a log."""
        now = self.latest
        if now is None:
            return ""
        left_s = self.left_s()
        parts = [
            LABELS[now.phase],
            counts(now),
            "" if now.accuracy is None else f"accuracy {percent(now.accuracy)}",
            "" if left_s is None or left_s < _SHOWN_S else f"{seconds(left_s)} left",
        ]
        return "  ".join(part for part in parts if part)


def seconds(time_s: float) -> str:
    """0.42 as "0.4 s", 75 as "1 min 15 s", 7300 as "2 h 1 min"."""
    if time_s < 10:
        return f"{time_s:.1f} s"
    if time_s < 60:
        return f"{time_s:.0f} s"
    minutes, rest = divmod(round(time_s), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(share: float | None) -> str:
    """0.8312 as "83.1%"; a dash where there is no figure."""
    return "-" if share is None else f"{100 * share:.1f}%"
