"""The tests that `make test` leaves out, and `make test-slow` and CI run.

They take seconds each, because they start, stop, kill, overload or build whole servers, or try many
random inputs. They fail seldom: other tests check the same in a smaller form, or the code that they
test changes seldom. An entry is a folder, a file, or a test of a file ("file::test").
"""

from __future__ import annotations

from pathlib import PurePosixPath

SLOW = {
    "server killed, databases stopped, clocks set, clients that misbehave": (
        "tests/torture/test_torture.py",
        "tests/endurance",
        "tests/faults",
        "tests/integration/test_outage.py",
        "tests/integration/test_processes.py",
        "tests/integration/test_workers.py",
        "tests/integration/test_races.py",
        "tests/integration/test_feed.py",
        "tests/integration/test_reversals.py::test_through_several_workers_at_once",
        "tests/integration/test_reversals.py::test_a_server_that_is_killed_during_a_reversal",
        "tests/integration/test_upload_failures.py::test_the_server_deletes_old_failed_records",
        "tests/process/test_lifecycle.py",
        "tests/process/test_tls_processes.py",
        "tests/process/test_systemd.py",
        "tests/rpc/test_connections.py",
        "tests/cli/test_interrupts.py",
    ),
    "malformed and hostile input, at random": (
        "tests/hostile",
        "tests/fuzz",
        "tests/integration/test_stateful.py",
        "tests/integration/test_properties.py",
        "tests/integration/test_recut_uploads.py",
        "tests/integration/test_bad_bytes.py",
        "tests/core/test_random_costs.py",
        "tests/core/test_threads.py",
        "tests/core/test_sizes.py",
        "tests/core/test_real_deck.py",
        "tests/core/test_memory.py",
    ),
    "many sizes, forms or random changes, other tests try some of them": (
        "tests/cache/test_decks.py::test_any_sequence_of_changes_gives_what_a_fresh_load_gives",
        "tests/core/test_builder.py::TestChanges",
        "tests/rating/test_deck_replacement.py::test_any_decks_against_a_plain_computation",
        "tests/record/test_feed.py::test_parts_of_any_size_give_each_cdr_once",
        "tests/record/test_feed.py::test_readers_that_stop_at_any_position_while_many_record",
        "tests/record/test_upload_failures.py"
        "::test_ten_thousand_failed_records_of_the_greatest_length",
        "tests/reports/test_usage.py::test_every_dimension_and_every_pair",
        "tests/reports/test_usage.py::test_random_corrections",
        "tests/storage/test_search.py::test_every_form_of_every_letter_is_found_by_every_other",
    ),
    "all RPCs with all roles, tokens and clients": (
        "tests/contract/test_permission_matrix.py",
        "tests/contract/test_calls.py",
        "tests/cli/test_end_to_end.py",
        "tests/cli/test_operator_commands.py",
        "tests/cli/test_installation.py",
        "tests/test_readme.py",
    ),
    "wheels and images built, databases migrated, backups restored": (
        "tests/test_packaging.py",
        "tests/test_deploy.py",
        "tests/test_backup.py",
        "tests/storage/test_backup.py",
        "tests/storage/test_old_release.py",
        "tests/observability/test_scrape.py",
        "tests/observability/test_queries.py",
        "tests/test_business_dashboard.py",
    ),
    "every benchmark, small": ("tests/test_benchmarks.py",),
}
_ENTRIES = frozenset(entry for entries in SLOW.values() for entry in entries)


def is_slow(test: str) -> bool:
    """Whether the table contains the test, its file or a folder of it. ``test`` is pytest's id."""
    path, *names = test.partition("[")[0].split("::")
    file = PurePosixPath(path)
    candidates = {path, *map(str, file.parents), *(f"{path}::{name}" for name in names)}
    return not candidates.isdisjoint(_ENTRIES)


def entries() -> frozenset[str]:
    """All entries of the table."""
    return _ENTRIES
