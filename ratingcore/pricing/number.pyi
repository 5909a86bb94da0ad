def normalize_number(
    number: str,
    country_code: str = "",
    national_prefix: str = "",
    international_prefix: str = "",
) -> str | None: ...
def normalize_prefix(prefix: str) -> str | None: ...
