"""The app's resources and manifest, compiled and linked by aapt2 against Android's platform.

The platform at hand knows nothing of what came after API 23: attributes of the manifest that are
newer are left out of the link, and named.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from toolchain import BUILD, PROJECT, aapt2, android_jar, fresh, run

NEWER = ("dataExtractionRules",)
"""Attributes of the manifest that API 23 does not know; the first needs API 31."""

_NEWER_FILES = ("data_extraction_rules.xml",)


@dataclass(frozen=True)
class Linked:
    """A linked package without code. java: folder of R.java. left_out: see `NEWER`."""

    package: Path
    java: Path
    left_out: tuple[str, ...]


@cache
def link(flavour: str) -> Linked:
    """Compile and link the resources of the release build of a flavour."""
    tool, platform = aapt2(), android_jar()
    place = fresh(BUILD / f"resources-{flavour}")
    java = place / "java"
    java.mkdir(parents=True)
    for file in sorted((PROJECT / "app/src/main/res").rglob("*.xml")):
        if file.name not in _NEWER_FILES:
            run([tool, "compile", "-o", place, file])
    manifest = (PROJECT / "app/src/main/AndroidManifest.xml").read_text()
    for attribute in NEWER:
        manifest = re.sub(rf'\s+android:{attribute}="[^"]*"', "", manifest)
    manifest = manifest.replace("<manifest ", '<manifest package="dev.persona.demo" ', 1)
    (place / "AndroidManifest.xml").write_text(manifest)
    package = place / "resources.apk"
    run([
        tool, "link", "-o", package, "-I", platform, "--manifest", place / "AndroidManifest.xml",
        "--java", java, "--min-sdk-version", "26", "--target-sdk-version", "36",
        "--version-code", "1", "--version-name", "0.1.0", *sorted(place.glob("*.flat")),
    ])  # fmt: skip
    return Linked(package, java, NEWER)
