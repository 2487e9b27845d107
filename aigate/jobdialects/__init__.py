"""Job dialects: how each family of media providers is asked, watched and stopped. `JOB_DIALECTS` is the registry that rows name them by."""

from __future__ import annotations

from aigate.jobdialects.aigate import Aigate
from aigate.jobdialects.dialect import JobDialect
from aigate.jobdialects.elevenlabs_music import ElevenLabsMusic
from aigate.jobdialects.fal import Fal
from aigate.jobdialects.google_omni import GoogleOmni
from aigate.jobdialects.google_veo import GoogleVeo
from aigate.jobdialects.luma import Luma
from aigate.jobdialects.meshy import Meshy
from aigate.jobdialects.openai_videos import OpenAIVideos
from aigate.jobdialects.replicate import Replicate
from aigate.jobdialects.runway import Runway
from aigate.jobdialects.stability import Stability

_ALL: tuple[JobDialect, ...] = (
    OpenAIVideos(), GoogleVeo(), GoogleOmni(), Runway(), Luma(), Replicate(), Fal(), ElevenLabsMusic(), Stability(), Meshy(),
    Aigate(),
)  # fmt: skip
JOB_DIALECTS: dict[str, JobDialect] = {dialect.name: dialect for dialect in _ALL}
