"""The tests that `make test` leaves out, and `make test-slow` and CI run.

They take seconds each, because they start, stop, kill, overload or build whole servers, or try many
random inputs. They fail seldom: other tests check the same in a smaller form, or the code that they
test changes seldom. A path is a folder or a file.
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
        "tests/rpc/test_lifecycle.py",
        "tests/rpc/test_tls_processes.py",
        "tests/rpc/test_systemd.py",
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
        "tests/metrics/test_scrape.py",
        "tests/metrics/test_queries.py",
        "tests/test_business_dashboard.py",
    ),
    "every benchmark, small": ("tests/test_benchmarks.py",),
}
_PATHS = frozenset(path for paths in SLOW.values() for path in paths)


def is_slow(path: PurePosixPath) -> bool:
    """Whether the file, given from the root of the repository, is in the table."""
    return any(str(one) in _PATHS for one in (path, *path.parents))


def paths() -> frozenset[str]:
    """All paths of the table."""
    return _PATHS
