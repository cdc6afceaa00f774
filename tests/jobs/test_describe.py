"""The table of a network and its numbers agree."""

from nlnet.jobs.describe import describe_network, summary, table
from tests.cli.commands import run_config


def test_the_totals_are_the_sums_of_the_stages():
    stages = describe_network(run_config())
    numbers = summary(stages)
    assert numbers["parameters"] == sum(stage.parameters for stage in stages) > 0
    assert numbers["multiply_adds"] == sum(stage["multiply_adds"] for stage in numbers["stages"])
    lines = table(stages).splitlines()
    assert len(lines) == len(stages) + 3  # a header, a rule and the totals
    assert f"{numbers['parameters']:,}" in lines[-1]
