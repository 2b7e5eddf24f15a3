"""How fast background jobs are, in memory: a moving average over the last seconds, by the injected clock.

Rows say how far a job is; here is only when it got there, which a restart forgets. Written by the state thread after
the commits of steps, read by reader threads for people.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from redfs.coordinator.environment import Clock

WINDOW_S = 10.0
"""The average is over this: long enough to be steady, short enough to follow a change of load."""
SAMPLE_S = 0.5
"""Between two samples of a job."""
LEAST_S = 1.0
"""Over less no rate is told: it would be noise."""
RECENT_S = 5.0
"""A job whose last step is older waits: for its turn behind many others, for room on a full disk."""
MAX_MEASURED_JOBS = 1024
"""More than a status shows; beyond, those that made no step for the longest time are forgotten."""


class _Sample(NamedTuple):
    at_s: float
    done_bytes: int


class _Track:
    """One job's samples, oldest first, and its last step."""

    def __init__(self, at_s: float, done_bytes: int) -> None:
        self.samples: deque[_Sample] = deque([_Sample(at_s, done_bytes)], maxlen=int(WINDOW_S / SAMPLE_S) + 1)
        self.last = _Sample(at_s, done_bytes)


class JobProgress:
    """job id -> its last seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tracks: dict[int, _Track] = {}

    def stepped(self, job_id: int, before_bytes: int, done_bytes: int) -> None:
        """A step was committed; `before_bytes` were done before it."""
        now_s = self._clock.monotonic()
        with self._lock:
            track = self._tracks.pop(job_id, None) or _Track(now_s, before_bytes)
            self._tracks[job_id] = track  # the newest is last
            track.last = _Sample(now_s, done_bytes)
            if now_s - track.samples[-1].at_s >= SAMPLE_S:
                track.samples.append(track.last)
            while len(self._tracks) > MAX_MEASURED_JOBS:
                del self._tracks[next(iter(self._tracks))]

    def forget(self, job_id: int) -> None:
        """The job has ended or stands still: what was measured says nothing about what comes."""
        with self._lock:
            self._tracks.pop(job_id, None)

    def is_running(self, job_id: int) -> bool:
        """Whether it made a step lately."""
        with self._lock:
            track = self._tracks.get(job_id)
            return track is not None and self._clock.monotonic() - track.last.at_s < RECENT_S

    def rate(self, job_id: int) -> float:
        """Bytes a second over the last seconds; 0 where that is not known yet, or nothing was freed."""
        now_s = self._clock.monotonic()
        with self._lock:
            track = self._tracks.get(job_id)
            if track is None or now_s - track.last.at_s > WINDOW_S:
                return 0.0
            samples = track.samples
            while len(samples) > 1 and now_s - samples[0].at_s > WINDOW_S:
                samples.popleft()
            first = samples[0]
            passed_s = now_s - first.at_s
            if passed_s < LEAST_S:
                return 0.0
            return (track.last.done_bytes - first.done_bytes) / passed_s
