from enum import IntEnum

from .kept_rates import KeptRates
from .stored_rows import StoredRows

class Finding(IntEnum):
    TENANT_MISSING = 1
    RULES_MISSING = 2
    RULES_DAMAGED = 3
    NOT_BILLABLE = 4
    BILLABLE = 5
    NUMBER_IS_VALID = 6
    NUMBER_IS_INVALID = 7
    RATE_MISSING = 8
    RATE_DAMAGED = 9
    RATE_OF_ANOTHER = 10
    RATE_NOT_PRESENT = 11
    RATE_BLOCKED = 12
    RATE_NOT_IN_EFFECT = 13
    PREFIX = 14
    BILL_SECONDS = 15
    COST = 16
    COST_OVERFLOW = 17

def recompute(rows: StoredRows, kept: KeptRates) -> list[tuple[int, Finding, int]]: ...
