"""The text format: read by Prometheus's own parser where it is installed."""

from __future__ import annotations

import pytest

from warren.fabric.daemon.metrics import Family, counted, counter, gauge, process, text

NASTY = 'a "b" \\ c\nd'


def test_the_page() -> None:
    page = text([counter("x_total", "Some.", 3), counted("y_total", "More.", "reason", {"policy": 2, "limit": 1})])
    assert page == (
        "# HELP x_total Some.\n# TYPE x_total counter\nx_total 3\n"
        "# HELP y_total More.\n# TYPE y_total counter\n"
        'y_total{reason="limit"} 1\ny_total{reason="policy"} 2\n'
    )


def test_a_parser_reads_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    nasty = Family("z", "gauge", NASTY, (({"edge": NASTY}, 1),))
    page = text([*process(), gauge("g", "A gauge.", 1.5), nasty, counted("empty_total", "None yet.", "reason", {})])
    found = {sample.name: sample for family in parser.text_string_to_metric_families(page) for sample in family.samples}
    assert found["z"].labels == {"edge": NASTY}
    assert found["g"].value == 1.5
    assert found["process_resident_memory_bytes"].value > 1 << 20
    assert found["process_open_fds"].value > 2
    assert "version" in found["warren_build_info"].labels
