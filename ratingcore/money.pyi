from collections.abc import Sequence

def charge(
    duration_seconds: int,
    cost_per_minute_e4: int,
    billing_increment: int,
    connect_fee_e4: int = 0,
    minimum_seconds: int = 0,
    intervals: Sequence[tuple[int, int, int]] = (),
    rounding: int = 1,
) -> tuple[int, int]: ...
