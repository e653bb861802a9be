"""The real dump: a processor driver crashes 3.7 s after boot, and the exception record points into the kernel."""

from pathlib import Path

import pytest

from ingest.endpoint.dump import TriageDump, read_triage_dump
from ingest.endpoint.errors import DumpError
from ingest.signature import Frame, signature_of


@pytest.fixture(scope="module")
def sample_dump(triage_sample: Path) -> TriageDump:
    return read_triage_dump(triage_sample)


def test_the_sample_is_blamed_on_the_driver_and_not_on_the_kernel(sample_dump: TriageDump) -> None:
    assert (sample_dump.blame.module, sample_dump.blame.offset) == ("amdppm.sys", 0x334C)
    assert sample_dump.blame.rule == "fault_parameter"
    assert sample_dump.blame.notes == ("parameter 2 of 0x7e points to amdppm.sys+0x334c",)


def test_the_samples_exception_record_alone_would_have_blamed_the_kernel(sample_dump: TriageDump) -> None:
    kernel = next(driver for driver in sample_dump.drivers if driver.name == "ntoskrnl.exe")
    address = sample_dump.exception_address
    assert address is not None
    assert kernel.base <= address < kernel.base + kernel.size_bytes
    assert sample_dump.exception_code == 0x8000_0003


def test_the_samples_header_is_read(sample_dump: TriageDump) -> None:
    assert (sample_dump.machine, sample_dump.os_build) == ("x64", 19041)
    assert (sample_dump.bugcheck_raw, sample_dump.bugcheck) == (0x1000_007E, 0x7E)
    assert sample_dump.parameters[0] == 0xFFFF_FFFF_C000_0005
    assert sample_dump.uptime_ms == 3_747
    assert sample_dump.crash_time_ms == 1_613_871_502_987


def test_the_samples_drivers_are_read(sample_dump: TriageDump) -> None:
    assert len(sample_dump.drivers) == 151
    assert sample_dump.drivers[0].name == "ntoskrnl.exe"
    assert sample_dump.drivers[0].timestamp == 0x0D83_33E6
    names = [driver.name for driver in sample_dump.drivers]
    assert "uefi.sys" in names  # From the driver store, whose path is long.
    assert names == [name.lower() for name in names]
    assert [gone.name for gone in sample_dump.unloaded_drivers] == [
        "dam.sys",
        "wdboot.sys",
        "hwpolicy.sys",
        "mcupdate.dll",
    ]


def test_the_samples_stack_starts_where_the_fault_happened(sample_dump: TriageDump) -> None:
    assert sample_dump.frames[0] == Frame("amdppm.sys", 0x334C)
    assert len(sample_dump.frames) == 63
    # The device was being powered up by the driver framework when its driver failed.
    assert [frame.module for frame in sample_dump.frames][12:15] == ["amdppm.sys", "wdf01000.sys", "amdppm.sys"]


def test_the_sample_gives_the_same_signature_on_the_server_with_and_without_the_agents_word(
    sample_dump: TriageDump,
) -> None:
    stated = signature_of(
        sample_dump.bugcheck_raw, sample_dump.parameters, sample_dump.frames, sample_dump.blame.module
    )
    unstated = signature_of(sample_dump.bugcheck, sample_dump.parameters, sample_dump.frames)
    assert stated.module_bugcheck == "amdppm.sys|0x7e"
    assert unstated.frames == stated.frames
    assert stated.frames.startswith("amdppm.sys|0x7e|amdppm.sys+0x334c|")


def test_every_cut_of_the_sample_is_refused_as_truncated(triage_sample: Path) -> None:
    whole = triage_sample.read_bytes()
    for length in (1, 7, 8, 100, 0x1FFF, 0x2000, 0x2040, 0x5000, 0x10828, 0x15D18, 0x13A28B):
        with pytest.raises(DumpError) as caught:
            read_triage_dump(whole[:length])
        assert caught.value.reason == "truncated", length
    # What follows the declared size is the writer's secondary data, which is not read.
    assert read_triage_dump(whole[:0x13A28C]).blame.module == "amdppm.sys"
