"""An APK of the app, as far as it can be made here: dexed, linked, aligned, signed and verified.

ExecuTorch's Android library is out of reach here, so the package lacks its classes and native code:
it proves that the app's own code, resources and manifest make a package that Android's tools take,
not that it runs. Gradle makes the one that does.
"""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from resources import link
from toolchain import BUILD, BrokenError, dx, fresh, install, java_home, kotlin_library, run

_PASSWORD = "not-a-secret"
"""The key signs this check's package and is thrown away."""


def signed_apk(class_path: Sequence[Path]) -> str:
    """class_path: of the app, from `app_classes`; the stand-in among it is left out."""
    place = fresh(BUILD / "apk")
    classes = place / "classes"
    classes.mkdir(parents=True)
    for folder in class_path:
        if folder.name != "standin":
            shutil.copytree(folder, classes, dirs_exist_ok=True)
    with zipfile.ZipFile(kotlin_library()) as library:
        names = [n for n in library.namelist() if n.endswith(".class") and "META-INF" not in n]
        library.extractall(classes, [n for n in names if not n.startswith("module-info")])
    shutil.rmtree(classes / "META-INF", ignore_errors=True)
    java = java_home() / "bin/java"
    dex = place / "classes.dex"
    run([java, "-Xmx1g", "-cp", dx(), "com.android.dx.command.Main", "--dex",
         "--min-sdk-version=26", f"--output={dex}", classes])  # fmt: skip
    package = place / "unaligned.apk"
    shutil.copy(link("cpu").package, package)
    with zipfile.ZipFile(package, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.write(dex, "classes.dex")
    return _signed(package, place, dex)


def _signed(package: Path, place: Path, dex: Path) -> str:
    zipalign, apksigner = install("zipalign", "zipalign"), install("apksigner", "apksigner")
    aligned, store = place / "persona-demo.apk", place / "throwaway.p12"
    run([zipalign, "4", package, aligned])
    run([java_home() / "bin/keytool", "-genkeypair", "-keystore", store, "-storetype", "PKCS12",
         "-alias", "check", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "1",
         "-storepass", _PASSWORD, "-dname", "CN=check"])  # fmt: skip
    run([apksigner, "sign", "--ks", store, "--ks-pass", f"pass:{_PASSWORD}",
         "--min-sdk-version", "26", aligned])  # fmt: skip
    said = run([apksigner, "verify", "--verbose", "--min-sdk-version", "26", aligned])
    schemes = [f"v{n}" for n in (2, 3) if f"v{n} scheme (APK Signature Scheme v{n}): true" in said]
    if len(schemes) != 2:
        raise BrokenError(f"expected signatures v2 and v3, got {schemes}:\n{said}")
    size, code = aligned.stat().st_size // 1024, dex.stat().st_size // 1024
    return f"{size} kB with {code} kB of dex, {' and '.join(schemes)} verified; without ExecuTorch"
