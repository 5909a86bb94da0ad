"""Every query of the alert rules and of the dashboard has data from a server that has worked.

Once with the parsed expressions against a scrape; and, if a Prometheus is installed, by Prometheus
itself. An alert that does not fire has no data, so the test queries the value that an alert
compares, without the comparison.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from tests.integration.client import Client
from tests.integration.serving import ServerProcess
from tests.observability.scraping import SECONDS, Scrape, metrics_address, some_work, wait_until

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
SCRAPES = ROOT / "deploy" / "prometheus" / "prometheus.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "tollwire.json"
COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")
# Metrics of Prometheus itself.
OWN = {"up"}

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]
]


def compared(expression: str) -> str:
    """The value that an alert compares with its limit."""
    parsed = promql.parse(expression)
    assert isinstance(parsed, promql.BinaryExpr), expression
    assert str(parsed.op) in COMPARISONS, f"{expression}: {parsed.op}"
    return str(parsed.lhs)


def queries() -> dict[str, str]:
    """All expressions, by their location."""
    found = {rule["alert"]: compared(rule["expr"]) for rule in RULES}
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$instance", ".*")
            expression = expression.replace("$__rate_interval", "1m")
            assert "$" not in expression, expression
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


QUERIES = queries()


def selectors(expression: str) -> Iterator[Any]:
    """The parts of an expression that select series."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        elif isinstance(node, promql.MatrixSelector):
            found.append(node.vector_selector)
        return True

    promql.walk(promql.parse(expression), visit)
    return iter(found)


def matches(matcher: Any, labels: dict[str, str]) -> bool:
    value = labels.get(matcher.name, "")
    operator = str(matcher.op)
    if "Re" in operator or "~" in operator:
        is_match = re.fullmatch(matcher.value, value) is not None
    else:
        is_match = matcher.value == value
    return is_match != ("Not" in operator or operator.startswith("!"))


@pytest.fixture(scope="module")
def scrape(observed: ServerProcess) -> Scrape:
    return with_the_record(observed)


@pytest.fixture(scope="module")
def secured_scrape(secured: ServerProcess) -> Scrape:
    return with_the_record(secured)


def with_the_record(server: ServerProcess) -> Scrape:
    """When everything that the server queries in the background is present."""
    address = metrics_address(server)
    wait_until(lambda: Scrape(address).all("tollwire_unrated_cdrs") != [])
    wait_until(lambda: Scrape(address).all("tollwire_database_bytes") != [])
    return Scrape(address)


@pytest.mark.parametrize("where", QUERIES)
def test_the_series_of_a_query_exist(scrape: Scrape, secured_scrape: Scrape, where: str) -> None:
    chosen = list(selectors(QUERIES[where]))
    assert chosen, "nothing is chosen"
    for selector in chosen:
        if selector.name not in OWN:
            series = [
                labels for page in (scrape, secured_scrape) for labels, _ in page.all(selector.name)
            ]
            wanted = selector.matchers.matchers
            assert any(all(matches(one, labels) for one in wanted) for labels in series), selector


def test_a_query_of_an_unknown_series_is_detected(scrape: Scrape) -> None:
    for expression in ("tollwire_unheard_of", 'tollwire_health{service="NoService"}'):
        selector, *_ = selectors(f"sum(rate({expression}[5m]))")
        series = [labels for labels, _ in scrape.all(selector.name)]
        wanted = selector.matchers.matchers
        assert not any(all(matches(one, labels) for one in wanted) for labels in series)


def test_alerts_have_descriptions() -> None:
    names = [rule["alert"] for rule in RULES]
    handbook = (ROOT / "docs" / "operations.md").read_text("utf-8").splitlines()
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert f"### {rule['alert']}" in handbook
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_the_dashboard_can_be_loaded() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert x < 24 and (x, y) not in places, panel["title"]
                places.add((x, y))


PROMETHEUS = shutil.which("prometheus", path=f"{ROOT / '.tools' / 'bin'}:/usr/bin:/usr/local/bin")


class Prometheus:
    """A Prometheus that scrapes some servers each second."""

    def __init__(self, folder: Path, *targets: str) -> None:
        config = yaml.safe_load(SCRAPES.read_text("utf-8"))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(ALERTS)]
        config["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        assert PROMETHEUS is not None
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            return json.load(response)["data"]

    def answers(self, query: str) -> list[Any]:
        try:
            found: list[Any] = self.get("query", query=query)["result"]
        except OSError:
            return []  # it has only just begun
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)
        self._log.close()


@pytest.fixture(scope="module")
def prometheus(
    observed: ServerProcess, secured: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    if PROMETHEUS is None:
        pytest.skip("Prometheus is not installed: .ci/tools prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    running = Prometheus(folder, metrics_address(observed), metrics_address(secured))
    try:
        wait_until(lambda: running.answers("tollwire_unrated_cdrs") != [])
        wait_until(lambda: len(running.answers('tollwire_database_bytes{part="wal"}')) == 2)
        with Client(observed.address) as client:
            some_work(client)
        # Twice after the work: growth shows, and rates need two samples.
        scraped = "count_over_time(tollwire_build_info[1h])"
        before = time.time()
        wait_until(lambda: _newest(running, scraped) >= 3 and time.time() > before + 3)
        yield running
    finally:
        running.close()


def _newest(prometheus: Prometheus, query: str) -> float:
    return max((float(one["value"][1]) for one in prometheus.answers(query)), default=0)


@pytest.mark.external
@pytest.mark.timeout(300)
def test_prometheus_has_data_for_each_query(prometheus: Prometheus) -> None:
    ask: Callable[[str], list[Any]] = prometheus.answers
    without = {where: query for where, query in QUERIES.items() if not ask(query)}
    assert without == {}
    assert not ask("tollwire_unheard_of")


@pytest.mark.external
def test_prometheus_accepts_the_rules(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in RULES}
    wait_until(
        lambda: all(
            rule["health"] == "ok"
            for group in prometheus.get("rules")["groups"]
            for rule in group["rules"]
        )
    )
