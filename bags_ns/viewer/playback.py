"""How time runs while it plays."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Playback:
    """A clock over times in [0, 1]."""

    playing: bool = False
    speed: float = 1.0
    """1 is as fast as it was filmed."""
    loop: bool = True
    """Start again at the end, or stop there."""

    def advance(self, time: float, seconds: float, duration: float) -> float:
        """The time that follows `seconds` after `time`, where all of it lasts `duration` seconds."""
        if not self.playing or duration <= 0:
            return time
        later = time + self.speed * seconds / duration
        if later <= 1:
            return later
        if self.loop:
            return later % 1
        self.playing = False
        return 1.0

    def start(self, time: float) -> float:
        """Begins to play, and returns the time to do so from: at the end, from the start."""
        self.playing = True
        return 0.0 if time >= 1 else time
