"""Grafana's files are what `python -m ops.grafana` writes, and provisioning names them."""

from __future__ import annotations

import json

import yaml

from ops import grafana
from ops.stack.settings import PROJECT
from tests.unit.deployment.compose import filled_environment, load_services
from tracking_api.observe.dashboards import DASHBOARDS, PANELS

PROVISIONING = PROJECT / "grafana" / "provisioning"


def test_files__are_those_of_the_panels() -> None:
    expected = dict(grafana.files())
    assert set(grafana.FOLDER.iterdir()) == set(expected)
    for path, content in expected.items():
        assert path.read_text(encoding="utf-8") == content, "run python -m ops.grafana"


def test_files__every_panel__has_its_queries_and_the_provisioned_source() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())
    [source] = sources["datasources"]
    found = {}
    for board in DASHBOARDS:
        text = (grafana.FOLDER / f"{board.dashboard_id}.json").read_text(encoding="utf-8")
        for panel in json.loads(text)["panels"]:
            found[panel["title"]] = [one["expr"] for one in panel["targets"]]
            assert panel["datasource"]["uid"] == source["uid"]
    queries = {one.title: [query.promql for query in one.queries] for one in PANELS.values()}
    assert found == queries


def test_provisioning__dashboards__are_where_compose_mounts_them() -> None:
    providers = yaml.safe_load((PROVISIONING / "dashboards" / "doorstep.yml").read_text())
    [provider] = providers["providers"]
    volumes = load_services(filled_environment())["grafana"]["volumes"]
    path = provider["options"]["path"]
    assert f"./grafana/dashboards:{path}:ro" in volumes
