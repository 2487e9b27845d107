"""The simulated media service's book: every submission it took, where each stands, what each costs, and the file each becomes.

A job's stand follows from its submission and the clock alone, so the book is a list of submissions and cancellations; it is appended to a
file where one is given, one `write` a line, and read back after a kill. Knows no HTTP. Its sums are its own: a test compares the ledger.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from aigate.sim import glb, mp4, wav
from aigate.sim.media_behaviours import MediaBehaviour, read_media_behaviour
from aigate.sim.rates import MEDIA_NANOUSD

QUEUE_SHARE = 0.2  # of a job's time, spent waiting
_LONGEST_S = {"video": 60.0, "music": 300.0}
_PADDING_STEP = 4  # a file is padded by a multiple of it


class Submission(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One order. `key`: the Idempotency-Key it came with; `attempt`: the gateway's own id of it, where it tells."""

    id: str
    form: str  # openai-videos | fal
    model: str
    created_s: float
    prompt: str = ""
    seconds: float = 0.0
    shape: str = "16:9"
    resolution: str = "720p"
    seed: int = 0
    key: str = ""
    attempt: str = ""
    webhook: str = ""
    cancelled_s: float | None = None

    @property
    def behaviour(self) -> MediaBehaviour:
        return read_media_behaviour(self.model)


class Stand(msgspec.Struct, frozen=True):
    """`state`: queued | processing | completed | failed | cancelled."""

    state: str
    progress: float = 0.0
    message: str = ""  # of a failure
    is_blocked: bool = False
    ended_s: float | None = None


class MediaFile(msgspec.Struct, frozen=True):
    media_type: str
    name: str
    data: bytes
    pad_bytes: int = 0  # zeros to follow


class _Line(msgspec.Struct, omit_defaults=True):
    submitted: Submission | None = None
    cancelled: str = ""
    at_s: float = 0.0


class MediaDesk:
    """`now` gives unix seconds."""

    def __init__(self, path: str | None, seed: int, now: Callable[[], float]) -> None:
        self.seed = seed
        self.now = now
        self.submissions: dict[str, Submission] = {}
        self.posts: dict[str, int] = {}  # webhook calls that were answered well, by job
        self._by_key: dict[str, str] = {}
        self._file: int | None = None
        if path is not None:
            self._read_back(Path(path))
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def submit(self, wanted: Submission) -> Submission:
        """The job; the earlier one where its key was seen, unless its model pays keys no heed."""
        has_key = bool(wanted.key) and not wanted.behaviour.is_keyless
        if has_key and wanted.key in self._by_key:
            return self.submissions[self._by_key[wanted.key]]
        self._append(_Line(submitted=wanted))
        self._take(wanted)
        return wanted

    def find(self, key: str) -> Submission | None:
        """The job of a key; None also where its model keeps none."""
        return self.submissions.get(self._by_key.get(key, ""))

    def new_id(self) -> str:
        text = f"{self.seed}/{len(self.submissions)}/{self.now()}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def cancel(self, submission: Submission) -> bool:
        """Whether it was still to be stopped."""
        if self.stand(submission).ended_s is not None:
            return False
        at_s = self.now()
        self._append(_Line(cancelled=submission.id, at_s=at_s))
        submission.cancelled_s = at_s
        return True

    def stand(self, submission: Submission) -> Stand:
        how = submission.behaviour
        if submission.cancelled_s is not None:
            return Stand("cancelled", ended_s=submission.cancelled_s)
        age_s = self.now() - submission.created_s
        done_s = submission.created_s + how.takes_s
        if how.ends == "early":
            return Stand("failed", message="The simulated provider failed, as asked.", ended_s=submission.created_s)
        if age_s < how.takes_s * QUEUE_SHARE:
            return Stand("queued")
        if how.ends == "never" or age_s < how.takes_s:
            return Stand("processing", progress=min(age_s / how.takes_s if how.takes_s else 0.5, 0.99))
        if how.ends == "late":
            return Stand("failed", message="The simulated provider failed at the end, as asked.", ended_s=done_s)
        if how.ends == "blocked":
            message = "The simulated provider does not allow this content, as asked."
            return Stand("failed", message=message, is_blocked=True, ended_s=done_s)
        return Stand("completed", progress=1.0, ended_s=done_s)

    def cost_nanousd(self, submission: Submission) -> int:
        """What the provider charges: only for what came out."""
        if self.stand(submission).state != "completed":
            return 0
        kind = submission.behaviour.kind
        rate = MEDIA_NANOUSD[kind].get(submission.resolution) or MEDIA_NANOUSD[kind][""]
        return rate if kind == "3d" else round(submission.seconds * 1000) * rate // 1000

    def file(self, submission: Submission) -> MediaFile:
        """Made anew each time it is fetched: the same bytes for the same order."""
        kind, pad = submission.behaviour.kind, submission.behaviour.pad_bytes
        pad -= pad % _PADDING_STEP
        said = f"{self.seed}/{submission.prompt}/{submission.seed}"
        seed = int.from_bytes(hashlib.sha256(said.encode("utf-8", "replace")).digest()[:4], "big")
        note = f"Made by aigate's simulated provider ({submission.model}); no model was at work. Asked for: {submission.prompt}"
        if kind == "video":
            data = mp4.make_video(submission.seconds, submission.shape, seed, note)
            return MediaFile("video/mp4", "video.mp4", data + (mp4.padding(pad) if pad else b""), pad)
        if kind == "music":
            tune = wav.make_tune(submission.seconds, seed, note)
            return MediaFile("audio/wav", "music.wav", wav.padded(tune, pad) if pad else tune, pad)
        model = glb.make_model(seed, note)
        return MediaFile("model/gltf-binary", "model.glb", glb.padded(model, pad) if pad else model, pad)

    def size(self, submission: Submission) -> str:
        """Of the picture as it really is, whatever was asked for and is charged."""
        return "x".join(map(str, mp4.size_of(submission.shape)))

    def tell(self) -> dict[str, object]:
        """For tests: every order, in order, with where it stands and what it costs."""
        rows = []
        for submission in self.submissions.values():
            stand = self.stand(submission)
            row = msgspec.to_builtins(submission)
            rows.append({**row, "state": stand.state, "cost_nanousd": self.cost_nanousd(submission), "posts": self.posts.get(submission.id, 0)})
        return {"submissions": rows, "cost_nanousd": sum(row["cost_nanousd"] for row in rows)}

    def reset(self) -> None:
        """Forgets all; the file too, as it would bring it back."""
        self.submissions.clear()
        self.posts.clear()
        self._by_key.clear()
        if self._file is not None:
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self, submission: Submission) -> None:
        self.submissions[submission.id] = submission
        if submission.key and not submission.behaviour.is_keyless:
            self._by_key[submission.key] = submission.id

    def _append(self, line: _Line) -> None:
        if self._file is not None:
            data = msgspec.json.encode(line) + b"\n"
            if os.write(self._file, data) != len(data):
                raise OSError("the file of jobs took only part of a line: is its disk full?")

    def _read_back(self, path: Path) -> None:
        """A last line that a kill cut short was never answered for, so it is left out."""
        if not path.exists():
            return
        for raw in path.read_bytes().split(b"\n")[:-1]:
            line = msgspec.json.decode(raw, type=_Line)
            if line.submitted is not None:
                self._take(line.submitted)
            elif line.cancelled in self.submissions:
                self.submissions[line.cancelled].cancelled_s = line.at_s


def length_of(kind: str, seconds: float) -> float:
    """What is really made of a wished length. ValueError for what is no length."""
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} seconds")
    return min(max(seconds, 1.0), _LONGEST_S[kind]) if kind in _LONGEST_S else 0.0
