"""What a device keeps survives being killed at any line: the old edit or the new one, whole."""

import json
import shutil
import subprocess
import sys

import pytest

from persona.device.device import Device
from persona.device.live import OnBase, OnEdit
from persona.device.store import DeviceStore
from persona.durable import PlaceError

KILLED_AT_EACH_LINE = """
import os, shutil, signal, sys
from pathlib import Path
from persona import durable
from persona.device import store
from persona.signing import decode_signature

folder, bundle, new, action = sys.argv[1:]
data = Path(new).read_bytes()
signature = decode_signature(Path(new + ".sig").read_bytes())
files = {store.__file__, durable.__file__}


def act(opened):
    if action == "activate":
        opened.activate(data, signature, 2)
    else:
        opened.deactivate()


def killed_at(line, opened):
    left = line

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    act(opened)
    os._exit(0)


line = 0
while True:
    line += 1
    copy = Path(f"{folder}-{line}")
    shutil.copytree(folder, copy)
    child = os.fork()
    if child == 0:
        killed_at(line, store.DeviceStore(copy, bundle))
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
print(line, os.waitstatus_to_exitcode(status))
"""


def killed_folders(phone, issue, tmp_path, action):
    """The folders that devices leave which were killed at each line of `action`."""
    old = issue("me", issue.change(1), sequence=1)
    new = issue("me", issue.change(2), sequence=2)
    phone.accept(*old)
    file = tmp_path / "new"
    other = Device(phone.bundle, tmp_path / "other")
    other.store.enrolled("me", "secret")
    other.accept(*new)
    shutil.copy(other.store.folder / "edit-2.safetensors", file)
    shutil.copy(other.store.folder / "edit-2.safetensors.sig", f"{file}.sig")
    command = [sys.executable, "-c", KILLED_AT_EACH_LINE]
    arguments = [str(phone.store.folder), phone.bundle.digest, str(file), action]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    lines, code = map(int, done.stdout.split())
    assert code == 0
    folders = [tmp_path / f"{phone.store.folder.name}-{line}" for line in range(1, lines + 1)]
    return folders, old, new


def test_killed_at_any_line_of_activating_leaves_the_old_edit_or_the_new(phone, issue, tmp_path):
    folders, old, new = killed_folders(phone, issue, tmp_path, "activate")
    assert len(folders) > 30
    found = []
    for folder in folders:
        device = Device(phone.bundle, folder)
        assert isinstance(device.live.state, OnEdit), f"{folder} came up without an edit"
        found.append(device.store.state.edit)
        assert device.store.active() == {1: old, 2: new}[device.store.state.edit]
        assert device.store.state.sequence == device.store.state.edit
        assert (device.store.state.device, device.store.state.token) == ("me", "secret")
        assert sorted(p.name for p in folder.iterdir()) == [
            f"edit-{found[-1]}.safetensors",
            f"edit-{found[-1]}.safetensors.sig",
            "state.json",
        ], "what the killed one left is cleared away"
    assert found == sorted(found)
    assert set(found) == {1, 2}


def test_killed_at_any_line_of_going_back_leaves_the_edit_or_the_base(phone, issue, tmp_path):
    folders, old, _ = killed_folders(phone, issue, tmp_path, "deactivate")
    states = []
    for folder in folders:
        device = Device(phone.bundle, folder)
        states.append(type(device.live.state))
        assert device.store.active() == (old if states[-1] is OnEdit else None)
        assert device.store.state.sequence == 1
    assert set(states) == {OnEdit, OnBase}


def test_the_state_file_is_for_its_owner_alone(phone):
    assert (phone.store.folder / "state.json").stat().st_mode & 0o777 == 0o600


def test_with_a_new_bundle_the_identity_stays_and_the_edit_goes(phone, issue):
    phone.accept(*issue("me", sequence=5))
    state = DeviceStore(phone.store.folder, "other").state
    assert (state.device, state.token, state.sequence, state.edit) == ("me", "secret", 5, None)


def test_enrolled_as_another_device_the_edit_and_its_sequence_go(phone, issue):
    phone.accept(*issue("me", sequence=5))
    phone.store.enrolled("me", "another token")
    assert phone.store.state.edit == 5
    phone.store.enrolled("you", "secret")
    assert (phone.store.state.sequence, phone.store.state.edit) == (0, None)


def test_only_the_files_of_the_active_edit_are_kept(phone, issue):
    for sequence in (1, 4, 9):
        phone.accept(*issue("me", sequence=sequence))
    names = sorted(p.name for p in phone.store.folder.iterdir())
    assert names == ["edit-9.safetensors", "edit-9.safetensors.sig", "state.json"]


def test_files_of_others_in_the_folder_are_left_alone(phone):
    stranger = phone.store.folder / "holiday.jpg"
    stranger.write_bytes(b"")
    DeviceStore(phone.store.folder, phone.bundle.digest)
    assert stranger.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match=r"cannot keep a device in .*choose another folder"):
        DeviceStore(tmp_path / "file" / "phone", "bundle")


CORRUPT = {
    "empty": b"",
    "half": b'{"bundle": "',
    "not text": b"\xff\xfe\x00",
    "not an object": b"[1]",
    "other fields": b'{"hello": 1}',
    "wrong types": json.dumps({"bundle": 3, "sequence": "x"}).encode(),
    "deep": b"[" * 200_000,
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_corrupt_state_file_is_a_new_device(phone, issue, content):
    phone.accept(*issue("me"))
    (phone.store.folder / "state.json").write_bytes(content)
    device = Device(phone.bundle, phone.store.folder)
    assert isinstance(device.live.state, OnBase)
    assert device.store.state.device == ""
    device.store.enrolled("me", "new")
    assert DeviceStore(phone.store.folder, phone.bundle.digest).state.token == "new"


@pytest.mark.parametrize("suffix", ["", ".sig"])
@pytest.mark.parametrize("fault", ["gone", "empty", "half", "garbage", "flipped", "folder"])
def test_a_corrupt_edit_is_not_run_and_does_not_prevent_start(phone, issue, suffix, fault):
    phone.accept(*issue("me"))
    path = phone.store.folder / f"edit-1.safetensors{suffix}"
    data = path.read_bytes()
    path.unlink()
    if fault == "folder":
        path.mkdir()
    elif fault != "gone":
        flipped = data[:50] + bytes([data[50] ^ 1]) + data[51:]
        content = {"empty": b"", "half": data[: len(data) // 2], "garbage": b"\xff" * 99}
        path.write_bytes(content.get(fault, flipped))
    device = Device(phone.bundle, phone.store.folder)
    assert isinstance(device.live.state, OnBase)
    assert device.store.state.sequence == 1, "and that edit may not come back"
    device.accept(*issue("me", sequence=2))
    assert isinstance(device.live.state, OnEdit)
