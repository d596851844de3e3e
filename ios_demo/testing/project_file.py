"""The Xcode project without Xcode: nothing it names is missing, and nothing it needs is left out.

    python ios_demo/testing/project_file.py

parses `project.pbxproj` with PyPI's `pbxproj`, follows every reference between its objects, every
path to a file, every package and product, every scheme and test plan, and reads every property
list, asset catalogue and string catalogue. Prints one line a check; ends with 1 where one fails.
"""

import json
import plistlib
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pbxproj import XcodeProject

IOS_DEMO = Path(__file__).resolve().parent.parent
PROJECT = IOS_DEMO / "PersonaDemo.xcodeproj"
SOURCES = IOS_DEMO / "PersonaDemo"
RUNTIME_FLAGS = ("-all_load", "Accelerate", "CoreGraphics", "CoreImage", "CoreVideo")
"""What ExecuTorch's static libraries want of the app's linker."""
RUNTIME_PRODUCTS = {
    "executorch",
    "backend_coreml",
    "backend_xnnpack",
    "kernels_optimized",
    "kernels_quantized",
}

_ID = re.compile(r"[0-9A-F]{24}")
_LOCALISED = re.compile(
    r"\b(?:Text|Label|Button|Toggle|LabeledContent|ProgressView|Picker|TextField|NavigationLink"
    r"|navigationTitle|accessibilityLabel|accessibilityHint|chartXAxisLabel|chartYAxisLabel"
    r"|String\(localized:)\(?\s*\"((?:[^\"\\]|\\.)+)\""
)
_INTERPOLATION = re.compile(r"\\\(")

Objects = dict[str, dict[str, Any]]


class ProjectError(ValueError):
    """The project names something that is not there, or lacks something that it needs."""


def load(project: Path) -> Objects:
    """Every object of a project by its id, as plain values."""
    parsed = XcodeProject.load(str(project / "project.pbxproj"))
    objects: Objects = {}
    for key in parsed.objects.get_keys():
        if key in objects:
            raise ProjectError(f"two objects have the id {key}")
        objects[str(key)] = _plain(parsed.objects[key])
    return objects


def _plain(value: Any) -> Any:
    if hasattr(value, "get_keys"):
        return {str(key): _plain(value[key]) for key in value.get_keys()}
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return str(value)


def references(value: Any) -> Iterator[str]:
    """Every id in an object's fields."""
    if isinstance(value, dict):
        for key, element in value.items():
            yield from references(key)
            yield from references(element)
    elif isinstance(value, list):
        for element in value:
            yield from references(element)
    elif _ID.fullmatch(value):
        yield value


def check_references(objects: Objects) -> str:
    """Every id that is named is an object, and every object is named by another."""
    named = set()
    for key, fields in objects.items():
        for reference in references(fields):
            if reference not in objects:
                raise ProjectError(f"{fields['isa']} {key} names {reference}, which is not there")
            named.add(reference)
    loose = [
        f"{fields['isa']} {key}"
        for key, fields in objects.items()
        if key not in named and fields["isa"] != "PBXProject"
    ]
    if loose:
        raise ProjectError(f"nothing names {', '.join(loose)}")
    return f"{len(objects)} objects, no dangling reference"


def check_paths(objects: Objects) -> str:
    """Every file, folder and package that the project names lies where it says."""
    count = 0
    for key, path in _paths(objects):
        count += 1
        if not (IOS_DEMO / path).exists():
            raise ProjectError(f"{objects[key]['isa']} {key} names {path}, which is not there")
    for key, fields in objects.items():
        if fields["isa"] != "PBXFileSystemSynchronizedRootGroup":
            continue
        for name in _exceptions(objects, fields):
            count += 1
            if not (IOS_DEMO / fields["path"] / name).exists():
                raise ProjectError(f"group {key} excludes {name}, which is not in {fields['path']}")
    return f"{count} paths, all there"


def _paths(objects: Objects) -> Iterator[tuple[str, str]]:
    for key, fields in objects.items():
        match fields["isa"]:
            case "PBXFileReference" if fields["sourceTree"] != "BUILT_PRODUCTS_DIR":
                yield key, fields["path"]
            case "PBXFileSystemSynchronizedRootGroup":
                yield key, fields["path"]
                for folder in fields.get("explicitFolders", []):
                    yield key, f"{fields['path']}/{folder}"
            case "XCLocalSwiftPackageReference":
                yield key, f"{fields['relativePath']}/Package.swift"
            case "XCBuildConfiguration" if "INFOPLIST_FILE" in fields["buildSettings"]:
                yield key, fields["buildSettings"]["INFOPLIST_FILE"]


def _exceptions(objects: Objects, group: dict[str, Any]) -> Iterator[str]:
    for key in group.get("exceptions", []):
        yield from objects[key].get("membershipExceptions", [])


def check_packages(objects: Objects) -> str:
    """The app links PersonaKit, its own logic and ExecuTorch's parts, and each product exists."""
    app = _target(objects, "PersonaDemo")
    linked = {objects[key]["productName"] for key in app["packageProductDependencies"]}
    phases = [objects[key] for key in app["buildPhases"]]
    files = [
        objects[file]
        for phase in phases
        if phase["isa"] == "PBXFrameworksBuildPhase"
        for file in phase["files"]
    ]
    in_phase = {objects[file["productRef"]]["productName"] for file in files}
    if linked != in_phase:
        raise ProjectError(f"products differ from the Frameworks phase: {linked ^ in_phase}")
    wanted = RUNTIME_PRODUCTS | {"PersonaKit", "PersonaKitExecuTorch", "PersonaDemoLogic"}
    if linked != wanted:
        raise ProjectError(f"the app must link {sorted(wanted)}, got {sorted(linked)}")
    for key in app["packageProductDependencies"]:
        dependency = objects[key]
        package = objects[dependency["package"]]
        if package["isa"] != "XCLocalSwiftPackageReference":
            continue
        manifest = (IOS_DEMO / package["relativePath"] / "Package.swift").read_text("utf-8")
        if f'.library(name: "{dependency["productName"]}"' not in manifest:
            raise ProjectError(
                f"{package['relativePath']} has no product {dependency['productName']}"
            )
    return f"{len(linked)} package products, all declared"


def check_settings(objects: Objects) -> str:
    """Swift 6, iOS 17, and the linker's flags, in every configuration."""
    project = next(fields for fields in objects.values() if fields["isa"] == "PBXProject")
    for settings in _settings(objects, project):
        for key, value in {"SWIFT_VERSION": "6.0", "IPHONEOS_DEPLOYMENT_TARGET": "17.0"}.items():
            if settings.get(key) != value:
                raise ProjectError(f"{key} must be {value}, got {settings.get(key)}")
    for settings in _settings(objects, _target(objects, "PersonaDemo")):
        missing = [flag for flag in RUNTIME_FLAGS if flag not in settings["OTHER_LDFLAGS"]]
        if missing:
            raise ProjectError(f"OTHER_LDFLAGS lacks {', '.join(missing)}")
    return "Swift 6, iOS 17, linker flags"


def _settings(objects: Objects, owner: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in objects[owner["buildConfigurationList"]]["buildConfigurations"]:
        yield objects[key]["buildSettings"]


def _target(objects: Objects, name: str) -> dict[str, Any]:
    for fields in objects.values():
        if fields["isa"] == "PBXNativeTarget" and fields["name"] == name:
            return fields
    raise ProjectError(f"there is no target {name}")


def check_schemes(objects: Objects) -> str:
    """Shared schemes and test plans name targets and files that are there."""
    targets = {
        key: fields["name"] for key, fields in objects.items() if fields["isa"] == "PBXNativeTarget"
    }
    plans: list[Path] = []
    schemes = sorted((PROJECT / "xcshareddata" / "xcschemes").glob("*.xcscheme"))
    if not schemes:
        raise ProjectError("there is no shared scheme")
    for scheme in schemes:
        root = ET.parse(scheme).getroot()
        for reference in root.iter("BuildableReference"):
            key, name = reference.get("BlueprintIdentifier", ""), reference.get("BlueprintName")
            if targets.get(key) != name:
                raise ProjectError(f"{scheme.name} names target {name} as {key}")
        plans += [
            IOS_DEMO / plan.get("reference", "").removeprefix("container:")
            for plan in root.iter("TestPlanReference")
        ]
    for plan in plans:
        if not plan.is_file():
            raise ProjectError(f"there is no test plan {plan.name}")
        content = json.loads(plan.read_text("utf-8"))
        for test in content["testTargets"]:
            key, name = test["target"]["identifier"], test["target"]["name"]
            if targets.get(key) != name:
                raise ProjectError(f"{plan.name} names target {name} as {key}")
    return f"{len(schemes)} scheme, {len(plans)} test plans"


def check_property_lists(_: Objects) -> str:
    """Info.plist and the privacy manifest are complete; the network is local without https."""
    info = plistlib.loads((SOURCES / "App" / "Info.plist").read_bytes())
    if info["NSAppTransportSecurity"] != {"NSAllowsLocalNetworking": True}:
        raise ProjectError("Info.plist must allow plain http in the own network and nowhere else")
    if not info.get("NSLocalNetworkUsageDescription"):
        raise ProjectError("Info.plist does not say why the app asks in the own network")
    schemes = [scheme for kind in info["CFBundleURLTypes"] for scheme in kind["CFBundleURLSchemes"]]
    if schemes != ["persona"]:
        raise ProjectError(f"Info.plist must declare the scheme persona, got {schemes}")
    privacy = plistlib.loads((SOURCES / "App" / "PrivacyInfo.xcprivacy").read_bytes())
    if privacy["NSPrivacyTracking"] or privacy["NSPrivacyTrackingDomains"]:
        raise ProjectError("the privacy manifest says that the app tracks")
    for entry in privacy["NSPrivacyAccessedAPITypes"]:
        if not entry["NSPrivacyAccessedAPITypeReasons"]:
            raise ProjectError(f"{entry['NSPrivacyAccessedAPIType']} has no reason")
    return "Info.plist and privacy manifest"


def check_catalogues(_: Objects) -> str:
    """Asset and string catalogues are JSON, and every text of the screens can be translated."""
    assets = sorted((SOURCES / "App" / "Assets.xcassets").rglob("Contents.json"))
    for path in assets:
        json.loads(path.read_text("utf-8"))
    catalogue = json.loads((SOURCES / "App" / "Localizable.xcstrings").read_text("utf-8"))
    if catalogue["sourceLanguage"] != "en":
        raise ProjectError("the string catalogue's source language must be en")
    missing = sorted(set(localised_texts()) - set(catalogue["strings"]))
    if missing:
        raise ProjectError(f"Localizable.xcstrings lacks {', '.join(map(repr, missing))}")
    return f"{len(assets)} asset catalogues, {len(catalogue['strings'])} strings"


def localised_texts() -> Iterator[str]:
    """Texts of the screens without interpolation, which is written into keys by Xcode's rules."""
    for path in sorted((SOURCES / "App").rglob("*.swift")):
        for match in _LOCALISED.finditer(path.read_text("utf-8")):
            text = match.group(1)
            if not _INTERPOLATION.search(text):
                yield text.replace('\\"', '"')


CHECKS: tuple[Callable[[Objects], str], ...] = (
    check_references,
    check_paths,
    check_packages,
    check_settings,
    check_schemes,
    check_property_lists,
    check_catalogues,
)


def main() -> int:
    try:
        objects = load(PROJECT)
        for check in CHECKS:
            print(f"ok    {check(objects)}")
    except ProjectError as error:
        print(f"FAIL  {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
