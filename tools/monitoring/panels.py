"""Panels of Grafana: queries, and the JSON that Grafana provisions."""

from __future__ import annotations

from typing import Any, NamedTuple

_WIDTH = 24
_HEIGHT = 8
_SCHEMA_VERSION = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Labels with a variable of the same name on the dashboards.
_VARIABLE_LABELS = ("stream", "endpoint")


class Query(NamedTuple):
    """An expression of PromQL and the legend of its series."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One panel; ``columns`` panels of its kind fill a row."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    columns: int = 3
    meaning: str = ""


class Dashboard(NamedTuple):
    """Titled rows of panels. ``variables`` are labels whose values can be chosen."""

    uid: str
    title: str
    variables: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def query(expression: str, legend: str) -> Query:
    """Return an expression as it is."""
    return Query(expression, legend)


def latest(combine: str, metric: str, *labels: str, legend: str = "") -> Query:
    """Return a gauge, combined over all other labels by ``sum``, ``min`` or ``max``."""
    return _grouped(combine, f"{metric}{_chosen(labels)}", labels, legend)


def rate(metric: str, *labels: str) -> Query:
    """Return the rate of a counter by ``labels``, over 5 minutes."""
    return _grouped("sum", f"rate({metric}{_chosen(labels)}[5m])", labels, "")


def increase(span: str, metric: str, *labels: str, combine: str = "sum", legend: str = "") -> Query:
    """Return the growth of a counter by ``labels``.

    Args:
        span: length of the window, in the notation of Prometheus.
        metric: name of the counter.
        labels: labels to keep.
        combine: ``sum``, or ``max`` for counters that each daemon reports from the same rows.
        legend: legend of the series; by default the values of the labels.
    """
    return _grouped(combine, f"increase({metric}{_chosen(labels)}[{span}])", labels, legend)


def quantile(share: float, histogram: str, label: str) -> Query:
    """Return a quantile of a histogram by ``label``, over 5 minutes."""
    rates = f"rate({histogram}_bucket{_chosen((label,))}[5m])"
    legend = f"{{{{{label}}}}} p{round(share * 100)}"
    return Query(f"histogram_quantile({share}, sum by ({label}, le) ({rates}))", legend)


def _grouped(combine: str, inner: str, labels: tuple[str, ...], legend: str) -> Query:
    shown = legend or " ".join(f"{{{{{label}}}}}" for label in labels)
    return Query(f"{combine} by ({', '.join(labels)}) ({inner})", shown)


def _chosen(labels: tuple[str, ...]) -> str:
    """Return the selector of the values that the user chose, empty without a variable."""
    chosen = [f'{label}=~"${label}"' for label in labels if label in _VARIABLE_LABELS]
    return f"{{{', '.join(chosen)}}}" if chosen else ""


def expressions(dashboard: Dashboard) -> list[str]:
    """Return the expressions of all panels."""
    return [one.expression for _, panels in dashboard.rows for panel in panels for one in panel.queries]


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard in the data model of Grafana."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in dashboard.rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
            }
        )
        top += 1
        left, height = 0, 0
        for panel in row:
            width = _WIDTH // panel.columns
            if left + width > _WIDTH:
                left, top = 0, top + height
            height = _HEIGHT // 2 if panel.columns > 3 else _HEIGHT
            place = {"x": left, "y": top, "w": width, "h": height}
            panels.append(_panel_json(len(panels) + 1, panel, place))
            left += width
        top += height
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["forewatch"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_DATASOURCE, *(_variable(*one) for one in dashboard.variables)]},
        "panels": panels,
    }


def _panel_json(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = []
    for index, (expression, legend) in enumerate(panel.queries):
        target = {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": expression,
            "legendFormat": legend,
        }
        if panel.kind == "table":
            target |= {"format": "table", "instant": True}
        targets.append(target)
    shown: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
    if panel.meaning:
        shown["description"] = panel.meaning
    return shown


_DATASOURCE = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(label: str, metric: str) -> dict[str, Any]:
    """Return a variable with the values that ``label`` has in ``metric``."""
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
