"""Prototypes follow what devices have shown, and the next version is one that devices accept."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cloud_phone import enrol_at
from databases import rows
from tiny_run import CONFIG

from persona.bundles import open_bundle
from persona.cli import main
from persona.evaluation.protocol import make_setting
from persona.formats.slots import effective, zero_edit
from persona.method.evolution import follow
from persona.method.prototypes import PrototypeBank
from persona.refined import RefinementError, judge, refine, save_refined
from persona.runs import load_run
from persona.training.devices import edited_part, losses, observe
from persona.training.pipeline import open_dataset
from persona.training.refinement import followed_centres, refine_from_latents, refit, stability
from persona_cloud import CloudConfig, create_app
from persona_cloud.identity import new_operator_key
from persona_cloud.refining import stored_latents
from persona_cloud.serving import running
from persona_cloud.signing_keys import SigningKeys
from persona_cloud.store import Store

DRIFTED = CONFIG.with_data({"rotation": 20.0, "contrast": [0.3, 0.5]})


def silent(_stage):
    return lambda _done, _all: None


@pytest.fixture(scope="module")
def drifted(run):
    """What forty devices of another population would upload."""
    devices = open_dataset(DRIFTED, None).devices("test", 40, 0)
    return observe(run.backbone, run.record.observation, devices)


def width(run):
    return run.bank.centres.shape[1]


def around(centres, count, spread, seed=0):
    """Latents scattered around centres in turn."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, spread, (count, centres.shape[1]))
    return (centres[np.arange(count) % len(centres)] + noise).astype(np.float32)


def test_of_each_device_the_newest_latent_is_read_once(other_cloud, bundle, run, observations, url):
    with other_cloud() as http:
        phones = [enrol_at(http, bundle) for _ in range(4)]
        for phone in phones:
            for observation in observations[: 1 + phones.index(phone)]:
                assert phone.ask(observation).status_code == 200
    Store(url).revoke_device(phones[3].device, datetime.now(UTC))
    rows(
        url,
        "UPDATE issued_edits SET bundle = :other WHERE device = :device",
        other="0" * 64,
        device=phones[2].device,
    )
    found = stored_latents(url, bundle.digest, width(run), 100)
    assert found.devices == (phones[0].device, phones[1].device)
    assert found.edits == 7
    for device, latent in zip(found.devices, found.latents, strict=True):
        stored = rows(
            url,
            "SELECT latent FROM issued_edits WHERE device = :device ORDER BY sequence DESC",
            device=device,
        )
        np.testing.assert_array_equal(latent, np.frombuffer(bytes(stored[0][0]), "<f4"))
    last = stored_latents(url, bundle.digest, width(run), 1)
    assert last.devices == (phones[1].device,)


def test_centres_go_where_the_latents_are():
    centres = torch.eye(3, 8)
    shift = torch.full((8,), 0.2)
    latents = torch.from_numpy(around((centres + shift).numpy(), 9_000, 0.05))
    found = followed_centres(centres, latents, weight=10, seed=0)
    torch.testing.assert_close(found, centres + shift, atol=0.01, rtol=0)


def test_a_few_devices_move_a_centre_by_their_share():
    centres = torch.zeros(1, 4)
    found = followed_centres(centres, torch.ones(50, 4), weight=450, seed=0)
    torch.testing.assert_close(found, torch.full((1, 4), 0.1), atol=1e-4, rtol=0)


def test_where_nothing_drifts_nothing_moves(run):
    centres = run.bank.centres
    latents = around(centres.numpy(), 900, 0.02)
    refined = refine_from_latents(run.bank, run.adapter, run.rule, latents, 300.0, 0)
    assert max(refined.stability.moved) < 0.01
    assert refined.stability.changed == 0
    assert refined.stability.drift < 3 * refined.stability.drift_by_chance
    for name, value in run.bank.edits().items():
        torch.testing.assert_close(refined.bank.edits()[name], value, atol=2e-3, rtol=0)


def test_the_report_sees_a_planted_drift():
    centres = torch.eye(2, 4)
    older, newer = around(centres.numpy(), 400, 0.1), around(centres.numpy() + 0.5, 400, 0.1, 1)
    latents = torch.from_numpy(np.concatenate([older, newer]))
    said = stability(centres, centres + 0.25, latents, 0)
    deviation = float(np.sqrt(((latents - latents.mean(0)) ** 2).sum(1).mean()))
    assert said.drift == pytest.approx(1.0 / deviation, rel=0.05)
    assert said.moved == pytest.approx((0.5 / deviation,) * 2, rel=1e-4)
    assert said.explained_after > said.explained_before
    assert sum(said.share_before) == pytest.approx(1)


def test_a_group_edit_moves_as_the_mean_edit_of_its_devices(run):
    """Device by device through the generators, not through their mean."""
    before = run.bank.centres
    shift = 0.05 * torch.sin(torch.arange(width(run)))
    with torch.no_grad():
        devices = before[0] + 0.1 * torch.randn(200, width(run), generator=torch.manual_seed(0))
        devices += before[0] - devices.mean(0)
        expected = {}
        for slot, (spec, generator) in enumerate(
            zip(run.record.slots, run.adapter.generators, strict=True)
        ):
            codes = devices.unflatten(1, (len(run.record.slots), -1))[:, slot]
            moved = (devices + shift).unflatten(1, (len(run.record.slots), -1))[:, slot]
            for suffix, head in generator.heads.items():
                change = (head(moved) - head(codes)).mean(0)
                expected[f"{spec.name}.{suffix}"] = change.reshape(spec.tensors()[suffix])
    found = follow(run.bank, run.adapter, before + shift)
    for name, change in expected.items():
        limit = {f"{s.name}.{x}": v for s in run.record.slots for x, v in s.limits().items()}[name]
        whole = (run.bank.edits()[name][0] + change).clamp(-limit, limit)
        torch.testing.assert_close(found.edits()[name][0], whole, atol=1e-5, rtol=1e-4)
    assert any(change.abs().max() > 1e-3 for change in expected.values())


def test_labelled_devices_repair_group_edits_that_are_wrong(run):
    """Judged on devices that nothing was fitted to."""
    data = open_dataset(CONFIG, None)
    setting = make_setting(run, data)
    spoilt = PrototypeBank(run.bank.slots, run.bank.count, width(run))
    spoilt.load_state_dict(run.bank.state_dict())
    for value in spoilt.raw.values():
        value.data.copy_(2.0 * torch.randn(value.shape, generator=torch.manual_seed(1)))
    wrong = refine_from_latents(
        spoilt, run.adapter, run.rule, around(run.bank.centres.numpy(), 300, 0.1), 1e6, 0
    )
    module, _ = edited_part(run.backbone, run.record.slots)
    config = replace(CONFIG.prototypes, steps=200)
    stage = (module, setting.train, setting.validation.tensors, config, 0, silent)
    fitted = refit(wrong, run.adapter, *stage)
    fleet = setting.fleet(data.devices("test", 60, 9_000))

    def loss(refined):
        with torch.no_grad():
            own, _ = run.adapter(fleet.tensors.observations)
            group = refined.bank.chosen(refined.bank.assign(own))
            return float(losses(module, run.record.slots, group, fleet.tensors).mean())

    assert loss(fitted) < loss(wrong) - 0.2


def test_gains_are_those_of_models_edited_by_hand(run, edited_by_hand):
    """Device by device, with the prototype that it chooses for itself."""
    data = open_dataset(CONFIG, None)
    setting = make_setting(run, data)
    latents = around(run.bank.centres.numpy() + 0.3, 300, 0.1)
    refined = refine_from_latents(run.bank, run.adapter, run.rule, latents, 10.0, 0)
    devices = data.devices("test", 12, 9_000)
    fleet = setting.fleet(devices)
    gains = judge(run, refined, setting, fleet)
    for said, bank in (
        (gains.prototype_only.before, run.bank),
        (gains.prototype_only.after, refined.bank),
    ):
        right = []
        for device, k in zip(devices, run.rule.assign(fleet.tensors.vectors).tolist(), strict=True):
            change = {name: value[k].detach().numpy() for name, value in bank.edits().items()}
            model = edited_by_hand(run.backbone, run.record.slots, change)
            with torch.no_grad():
                classes = model(*(torch.from_numpy(q) for q in device.queries)).argmax(1)
            right.append((classes.numpy() == device.targets).mean())
        assert said.mean == pytest.approx(np.mean(right), abs=1e-6)


def test_too_few_devices_are_not_enough_to_refine_from(run):
    latents = around(run.bank.centres.numpy(), 29, 0.1)
    with pytest.raises(RefinementError, match="latents of 30 devices or more"):
        refine(run, latents, None, silent)


@pytest.fixture
def refined(run, bundle, drifted, tmp_path):
    """A version refined from what drifted devices asked, without labels."""
    url = f"sqlite:///{tmp_path / 'asked.sqlite'}"
    with (
        running(create_app(CloudConfig(run.path, bundle.path, url))) as address,
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        for observation in drifted:
            assert enrol_at(http, bundle).ask(observation).status_code == 200
    found = stored_latents(url, bundle.digest, width(run), 100)
    assert len(found.latents) == len(drifted)
    made, gains = refine(run, found.latents, None, silent)
    report = save_refined(run, bundle, made, gains, tmp_path / "next")
    return report, tmp_path / "next", made


def test_the_next_version_differs_in_its_prototypes_alone(run, bundle, refined):
    report, out, made = refined
    new = open_bundle(out / "bundle", None)
    assert new.digest == report.bundle != bundle.digest == report.refined_from
    assert (new.manifest.model, new.key_id) == (run.model, bundle.key_id)
    changed = {n for n, f in new.manifest.files.items() if bundle.manifest.files[n] != f}
    assert changed == {"prototypes.safetensors", "golden.safetensors"}
    again = load_run(out / "run")
    assert again.edit_key().id == run.edit_key().id
    for name, value in made.bank.edits().items():
        torch.testing.assert_close(again.bank.edits()[name], value, atol=0, rtol=0)
        np.testing.assert_array_equal(new.prototypes.changes[1][name], value[1].numpy())
    assert json.loads((out / "refinement.json").read_text())["stability"]["devices"] == 40


def test_the_new_golden_vectors_are_what_the_prototypes_do(run, bundle, refined, edited_by_hand):
    _, out, _ = refined
    new = open_bundle(out / "bundle")
    for change, said in zip(new.prototypes.changes, new.golden.prototypes, strict=True):
        model = edited_by_hand(run.backbone, new.manifest.slots, change)
        with torch.no_grad():
            output = model(torch.from_numpy(new.golden.inputs[0]["image"].copy()))
        np.testing.assert_allclose(said[0], output.numpy(), atol=1e-5)
    np.testing.assert_array_equal(new.golden.base[0], bundle.golden.base[0])


def test_devices_get_edits_around_the_new_prototypes(refined, drifted, tmp_path):
    """The same device, served by the new version: prototype and edit sum to what they did."""
    _, out, _ = refined
    new = open_bundle(out / "bundle")
    config = CloudConfig(out / "run", out / "bundle", f"sqlite:///{tmp_path / 'next.sqlite'}")
    with (
        running(create_app(config)) as address,
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        phone = enrol_at(http, new)
        edit = phone.verify(phone.ask(drifted[0]))
    with torch.inference_mode():
        run = load_run(out / "run")
        whole, _ = run.adapter(torch.from_numpy(drifted[0].vector())[None])
    nothing = zero_edit(new.manifest.slots)
    prototype = new.prototypes.changes[edit.info.prototype]
    total = effective(new.manifest.slots, nothing, prototype, edit.tensors)
    for name, value in whole.items():
        np.testing.assert_allclose(total[name], value[0].numpy(), atol=4e-3)


def told(*words):
    result = CliRunner().invoke(main, [*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def asked(run, bundle, drifted, tmp_path):
    """A database of a cloud that forty devices have asked."""
    url = f"sqlite:///{tmp_path / 'asked.sqlite'}"
    with (
        running(create_app(CloudConfig(run.path, bundle.path, url))) as address,
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        for observation in drifted:
            enrol_at(http, bundle).ask(observation)
    return url


def test_the_command_reports_what_moved_and_what_held_out_devices_gain(
    run, bundle, asked, tmp_path
):
    words = ["refine", run.path, "--bundle", bundle.path, "--database", asked]
    code, said = told(*words, "--out", tmp_path / "next")
    assert code == 0, said
    assert (said["edits"], said["stability"]["devices"]) == (40, 40)
    assert said["gains"]["devices"] == CONFIG.evaluation.devices
    assert open_bundle(tmp_path / "next" / "bundle").digest == said["bundle"]


def test_what_it_made_is_published_as_the_command_says(run, bundle, asked, tmp_path):
    words = ["refine", run.path, "--bundle", bundle.path, "--database", asked]
    _, said = told(*words, "--out", tmp_path / "versions" / "next")
    secret, key = new_operator_key("releases", ["models"])
    Store(asked).add_operator_key(key)
    config = CloudConfig(run.path, bundle.path, asked, versions=tmp_path / "versions")
    headers = {"Authorization": f"Bearer {secret}"}
    with running(create_app(config)) as address:
        publish = said["publish"]
        answer = httpx.post(f"{address}{publish['path']}", json=publish["body"], headers=headers)
    assert (answer.status_code, answer.json()["bundle"]) == (201, said["bundle"])


@pytest.fixture
def own(run, tmp_path):
    """The run with keys that these tests may change."""
    shutil.copytree(run.path, tmp_path / "own")
    return tmp_path / "own"


def test_after_a_new_bundle_key_the_next_version_is_signed_with_it(own, bundle, asked, tmp_path):
    store = Store(asked)
    keys, old = SigningKeys(store, own / "keys"), load_run(own).bundle_key().id
    new = keys.add("bundle")
    keys.add("edit")
    keys.retire(load_run(own).edit_key().id, timedelta(days=7))
    words = ["refine", own, "--bundle", bundle.path, "--database", asked]
    (private,) = (path for path in (own / "keys").glob("bundle-*.pem"))
    shutil.copy2(private, own / "keys" / "bundles.pem")
    keys.revoke(old)
    code, said = told(*words, "--out", tmp_path / "next")
    assert code == 0, said
    assert open_bundle(tmp_path / "next" / "bundle", keys.publishers()).key_id == new.id
    config = CloudConfig(tmp_path / "next" / "run", tmp_path / "next" / "bundle", asked)
    assert create_app(config)


def test_a_key_that_devices_do_not_trust_signs_no_version(own, bundle, asked, tmp_path):
    keys = SigningKeys(Store(asked), own / "keys")
    old = load_run(own).bundle_key().id
    keys.add("bundle")
    keys.revoke(old)
    words = ["refine", own, "--bundle", bundle.path, "--database", asked]
    code, said = told(*words, "--out", tmp_path / "next")
    assert (code, said["error"]["code"]) == (2, "usage.signingkey")
    assert f"holds {old}, which devices do not trust" in said["error"]["message"]
    assert not (tmp_path / "next").exists()


def test_where_the_private_key_is_not_none_is_made(own, bundle, asked, tmp_path):
    (own / "keys" / "bundles.pem").unlink()
    public = (own / "keys" / "bundles.pem.pub").read_bytes()
    words = ["refine", own, "--bundle", bundle.path, "--database", asked]
    code, said = told(*words, "--out", tmp_path / "next")
    assert (code, said["error"]["code"]) == (2, "usage.signingkey")
    assert "refine where you export" in said["error"]["message"]
    assert not (own / "keys" / "bundles.pem").exists()
    assert (own / "keys" / "bundles.pem.pub").read_bytes() == public


def test_a_version_with_which_devices_lose_is_not_written(
    run, bundle, asked, tmp_path, monkeypatch
):
    def worse(*arguments):
        gains = judge(*arguments)
        loss = replace(gains.edited.after_minus_before, mean=-0.1, low=-0.2, high=-0.05)
        return replace(gains, edited=replace(gains.edited, after_minus_before=loss))

    monkeypatch.setattr("persona.refined.judge", worse)
    words = ["refine", run.path, "--bundle", bundle.path, "--database", asked]
    code, said = told(*words, "--out", tmp_path / "next")
    assert (code, said["error"]["code"]) == (1, "refine.loses")
    assert said["gains"]["edited"]["after_minus_before"]["high"] == -0.05
    assert not (tmp_path / "next").exists()


def test_a_cloud_that_nobody_has_asked_has_nothing_to_refine(run, bundle, tmp_path):
    database = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    words = ["refine", run.path, "--bundle", bundle.path, "--database", database]
    code, said = told(*words, "--out", tmp_path / "next")
    assert (code, said["error"]["code"]) == (2, "usage.refinement")
    assert "got 0; wait until more devices" in said["error"]["message"]
    assert not (tmp_path / "next").exists()
