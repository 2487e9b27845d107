"""Job dialects: how each family of media providers is asked, watched and stopped. `JOB_DIALECTS` is the registry that rows name them by."""

from __future__ import annotations

from aigate.jobdialects.dialect import JobDialect

_ALL: tuple[JobDialect, ...] = ()
JOB_DIALECTS: dict[str, JobDialect] = {dialect.name: dialect for dialect in _ALL}
