from collections.abc import Sequence

def charge(
    duration_seconds: int,
    cost_per_minute_e8: int,
    billing_increment: int,
    connect_fee_e8: int = 0,
    minimum_seconds: int = 0,
    intervals: Sequence[tuple[int, int, int]] = (),
    rounding: int = 1,
    cost_decimals: int = 4,
) -> tuple[int, int]: ...
def max_cost(cost_decimals: int) -> int: ...
