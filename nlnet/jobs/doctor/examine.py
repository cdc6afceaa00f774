"""All that the doctor looks at."""

from nlnet.jobs.doctor.findings import Section
from nlnet.jobs.doctor.machine import processor, storage
from nlnet.jobs.doctor.packages import extras, versions
from nlnet.jobs.doctor.self_test import self_test


def examine() -> list[Section]:
    """Versions, the machine, the folder of runs and extras, then the self-test (twenty seconds)."""
    found = [
        Section("versions", versions()),
        Section("machine", processor()),
        Section("folders", storage()),
        Section("extras", extras()),
    ]
    return [section for section in found if section.findings] + self_test()
