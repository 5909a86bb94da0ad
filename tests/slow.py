"""The tests that `make test` leaves out (SLOW), and those that `make test-quick` leaves out too.

Slow tests take seconds each, because they start, stop, kill, overload or build whole servers, or
try many random inputs. `make test-slow` and CI run them. They fail seldom: other tests check the
same in a smaller form, or the code that they test changes seldom. The tests of NOT_QUICK take a
quarter of a second or more each, and `make test` runs them. An entry is a folder, a file, or a test
of a file ("file::test").
"""

from __future__ import annotations

from collections.abc import Mapping
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
        "tests/cli/test_tokens.py::test_a_server_on_loopback_is_open_until_the_first_token",
        "tests/client/test_uploads.py::test_a_server_that_is_killed_and_comes_back",
        "tests/client/test_coalescing.py::test_calls_are_recorded_once_while_the_server_is_killed",
        "tests/client/test_coalescing.py::test_without_a_server_every_caller_gets_the_error",
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
        "tests/client/test_methods.py::test_every_asynchronous_method_answers_as_the_stub",
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
NOT_QUICK = {
    "starts a server with two workers": (
        "tests/process/test_fork_memory.py::test_a_worker_shares_most_of_its_memory",
    ),
    "waits of the memory guard and of a stop, and hundreds of RPCs": (
        "tests/rpc/test_capacity.py::test_health_checks_without_a_message_block_no_probe",
        "tests/rpc/test_capacity.py::test_memory_is_returned_after_large_requests",
        "tests/rpc/test_capacity.py::test_memory_that_grows_ends_what_is_being_read",
        "tests/rpc/test_capacity.py::test_silent_batches_delay_others_until_their_memory_is_needed",
        "tests/rpc/test_capacity.py::test_a_burst_of_small_batches_is_answered",
        "tests/rpc/test_capacity.py::test_the_limit_is_never_exceeded_and_everybody_gets_memory",
        "tests/rpc/test_health.py::test_every_watcher_gets_the_status_of_the_stop",
        "tests/rpc/test_native.py::test_a_stop_waits_until_the_answers_are_sent",
    ),
    "several clients at once; other tests check what each does alone": (
        "tests/cache/test_decks.py::test_a_deck_is_seen_complete_and_never_an_older_one",
        "tests/rating/test_deck_import.py::test_others_write_during_an_import",
        "tests/record/test_rate_unrated.py::test_two_concurrent_requests_price_no_call_twice",
        "tests/record/test_recorded_again.py::test_one_of_two_that_record_again_at_once_wins",
        "tests/record/test_reversals.py::test_two_concurrent_requests_make_one_reversal",
        "tests/record/test_reversals.py::test_against_rate_unrated_each_cdr_is_priced_or_withdrawn",
        "tests/record/test_single_calls.py::test_many_clients_with_all_kinds_of_calls",
        "tests/record/test_upload_reversals.py::test_concurrent_reversals",
        "tests/record/test_upload_reversals.py::test_against_rate_unrated",
        "tests/record/test_upload_reversals.py::test_while_its_chunks_are_being_committed",
        "tests/record/test_uploads.py::test_create_and_upload_at_once",
        "tests/record/test_uploads.py::test_the_same_records_in_two_concurrent_uploads",
        "tests/record/test_ledger.py::test_concurrent_uploads_are_no_difference",
        "tests/record/test_verification.py::test_while_uploads_run",
    ),
    "waits for a lock, a failure or a time-out": (
        "tests/accounts/test_credentials.py::test_a_change_without_effect_is_read_once",
        "tests/cache/test_decks.py::test_an_absent_database_is_survived",
        "tests/record/test_uploads.py"
        "::test_objects_that_calls_name_cannot_be_deleted_before_they_are_committed",
        "tests/record/test_uploads.py::test_the_currency_cannot_change_before_calls_are_committed",
    ),
    "the ledger verified once for each column of the tables": (
        "tests/record/test_ledger_columns.py",
    ),
    "thousands of calls or rates, or decades of days; other tests try fewer": (
        "tests/core/test_columns.py::test_decks_of_all_sizes_as_single_calls",
        "tests/core/test_explain.py::test_candidates_of_a_prefix_with_many_rates",
        "tests/core/test_matching.py::test_large_random_decks_as_the_oracle",
        "tests/core/test_matching.py::test_thousands_of_windows_of_one_prefix_as_the_oracle",
        "tests/core/test_money.py::test_every_increment_at_its_edges",
        "tests/rating/test_deck_import.py::test_a_broken_import_changes_nothing",
        "tests/rating/test_deck_import.py"
        "::test_an_imported_deck_equals_the_one_that_another_worker_reads",
        "tests/rating/test_rate_limits.py",
        "tests/record/test_rate_unrated.py::test_calls_that_stay_unrated_do_not_stop_the_others",
        "tests/record/test_recorded_again.py::test_a_large_upload_is_recorded_again",
        "tests/record/test_uploads.py::test_a_full_chunk",
        "tests/reports/test_usage.py::test_the_first_and_the_last_moment_and_decades_between",
    ),
}


def _entries(table: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(entry for entries in table.values() for entry in entries)


_SLOW, _NOT_QUICK = _entries(SLOW), _entries(NOT_QUICK)


def is_slow(test: str) -> bool:
    """Whether SLOW contains the test, its file or a folder of it. ``test`` is pytest's id."""
    return _contains(_SLOW, test)


def is_quick(test: str) -> bool:
    """Whether neither table contains the test."""
    return not _contains(_SLOW | _NOT_QUICK, test)


def _contains(entries: frozenset[str], test: str) -> bool:
    path, *names = test.partition("[")[0].split("::")
    file = PurePosixPath(path)
    candidates = {path, *map(str, file.parents), *(f"{path}::{name}" for name in names)}
    return not candidates.isdisjoint(entries)


def entries() -> frozenset[str]:
    """All entries of both tables."""
    return _SLOW | _NOT_QUICK
