"""CdrService, by subject: recording, reading, correcting, usage, proving.

``CdrServicer`` joins the parts and is the servicer that the server registers.
"""

from __future__ import annotations

from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.chunk_limiter import ChunkLimiter
from tollwire.service.record.explanations import Explanations
from tollwire.service.record.feed import Feed
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.reversals import Reversals
from tollwire.service.record.uploads import Uploads
from tollwire.service.record.verification import Verification
from tollwire.service.reports.usage import Usage
from tollwire.service.rpc.cdr_service.correcting import CdrCorrecting
from tollwire.service.rpc.cdr_service.proving import CdrProving
from tollwire.service.rpc.cdr_service.reading import CdrReading
from tollwire.service.rpc.cdr_service.recording import CdrRecording
from tollwire.service.rpc.cdr_service.usage import CdrUsage


class CdrServicer(CdrRecording, CdrReading, CdrCorrecting, CdrUsage, CdrProving):
    def __init__(
        self,
        cdrs: Cdrs,
        uploads: Uploads,
        usage: Usage,
        reversals: Reversals,
        verification: Verification,
        explanations: Explanations,
        ledger: Ledger,
        feed: Feed,
        chunk_limiter: ChunkLimiter,
    ) -> None:
        CdrRecording.__init__(self, cdrs, uploads, chunk_limiter)
        CdrReading.__init__(self, cdrs, explanations, feed)
        CdrCorrecting.__init__(self, reversals)
        CdrUsage.__init__(self, usage)
        CdrProving.__init__(self, verification, ledger)
